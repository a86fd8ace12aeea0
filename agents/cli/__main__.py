"""``python -m agents.cli`` runs ``pmlm``."""

from agents.cli.main import main

main()
