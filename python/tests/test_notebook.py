"""The notebook of the examples, executed as Jupyter does."""

import os
import pathlib

import pytest

HERE = pathlib.Path(__file__).parent
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")


def test_every_cell_runs(tmp_path):
    notebook = nbformat.read(HERE.parent / "examples/search.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert "image/svg+xml" in kinds and "text/html" in kinds, kinds
    text = "".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in shown)
    assert "all epochs are done" in text and "another one can" in text
