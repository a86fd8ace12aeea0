"""Run the notebook examples/tour.ipynb, and store its results in it: ``python docs/run_notebook.py``."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "tour.ipynb"


def fresh_run() -> nbformat.NotebookNode:
    """Return the notebook with the results of a run in a process of its own.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised an error.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": NOTEBOOK.parents[1]}}).execute()
    for cell in notebook.cells:
        cell.metadata.clear()  # the times of the run, which differ each time
    notebook.metadata.clear()
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def main() -> None:
    """Write the notebook."""
    nbformat.write(fresh_run(), NOTEBOOK)


if __name__ == "__main__":
    main()
