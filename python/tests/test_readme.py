"""The README's section about Python, as it stands there."""

import os
import pathlib
import re
import subprocess
import sys

README = pathlib.Path(__file__).parents[2] / "README.md"
PAGE = README.parent / "docs/python.md"


def test_the_section_runs(tmp_path):
    section = README.read_text().split("\n## In Python\n")[1].split("\n## ")[0]
    code = re.search(r"```python\n(.*?)```", section, re.S).group(1)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout


def test_the_space_of_the_page_runs(tmp_path):
    """The class of docs/python.md, from its file: searched, trained alone, measured."""
    code = re.search(r"```python\n(# chain\.py\n.*?)```", PAGE.read_text(), re.S).group(1)
    (tmp_path / "chain.py").write_text(code)
    small = "--dataset synthetic --set dataset.images=32 --epochs 1 --device cpu --set trainer.batch_size=16"
    for words in (
        f"run --strategy vim --space chain.py:Chain --set space.channels=3 --name found {small}",
        f"retrain runs/found --channels 4 --name alone {small}",
        "eval runs/alone",
    ):
        done = subprocess.run([sys.executable, "-m", "nasfw", *words.split()], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "top-1" in done.stdout


def test_the_strategy_of_the_page_runs(tmp_path):
    """The class of docs/python.md, from its file, on the command line and under the suite's eyes."""
    code = re.search(r"```python\n(# annealed\.py\n.*?)```", PAGE.read_text(), re.S).group(1)
    (tmp_path / "annealed.py").write_text(code)
    words = "run --strategy annealed.py:Annealed --set strategy.hot=3 --space toy-conv --dataset synthetic --epochs 1 --device cpu"
    done = subprocess.run([sys.executable, "-m", "nasfw", *words.split()], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
