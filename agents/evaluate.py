"""Evaluate a trained agent on held-out patients: ``python -m agents.evaluate``, equivalent to ``pmlm evaluate``."""

from agents.cli.main import main

if __name__ == "__main__":
    main("evaluate")
