"""``python -m agents.cli`` is ``pmlm``."""

from agents.cli.main import main

main()
