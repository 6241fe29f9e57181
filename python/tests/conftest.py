"""Tests of the package: `cargo xtask test` runs them, in a virtual environment below target."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))



@pytest.fixture
def command(tmp_path):
    """Runs `python -m nasfw …` in a process of its own; gives what it ended with."""

    def run(*words, cwd=tmp_path, check=True, **more):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
        words = [sys.executable, "-m", "nasfw", *map(str, words)]
        done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, **more)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


#: A search of seconds.
SMALL = {
    "dataset": {"name": "synthetic"},
    "epochs": 2,
    "threads": 1,
    "device": "cpu",
    "trainer": {"batch_size": 8},
    "progress": False,
}


@pytest.fixture
def small(tmp_path):
    """Settings of a search of seconds, in a folder of its own."""
    return {**SMALL, "out": tmp_path / "runs"}

#: Folder of Cargo's programs, where strategies in Rust are run by the tests.
PROGRAMS = HERE.parents[1] / "target/debug"
