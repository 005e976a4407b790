"""The notebook runs, from its first cell to its last."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"


def test_every_cell_runs_and_shows_the_tables_that_it_is_said_to_show(tmp_path):
    shown = nbformat.read(NOTEBOOK, as_version=4)
    run = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(run, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()

    assert len(_tables(shown)) >= 5
    assert _tables(run) == _tables(shown)


def _tables(notebook):
    """Shape and columns of each table; the numbers differ in their last digits from one processor to another."""
    texts = [
        output["data"].get("text/plain", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    tables = [text.splitlines() for text in texts if text.startswith("shape:")]
    return [(lines[0], [name.strip() for name in lines[2].strip("│").split("┆")]) for lines in tables]
