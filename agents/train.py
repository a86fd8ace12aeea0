"""Train an agent: ``python -m agents.train``, equivalent to ``pmlm train``."""

from agents.cli.main import main

if __name__ == "__main__":
    main("train")
