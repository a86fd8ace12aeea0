"""Train an agent: ``python -m agents.train``, which is ``pmlm train``."""

from agents.cli.main import main

if __name__ == "__main__":
    main("train")
