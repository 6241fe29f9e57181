"""Tests of the package: `cargo xtask test` runs them, in a virtual environment below target."""

import os
import pathlib
import random
import subprocess
import sys
import textwrap
import time

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


#: How often a test kills: many times where that is asked for.
KILLS = int(os.environ.get("KILLS", 1))


def kill_and_resume(script: str, folder: pathlib.Path, seed):
    """Kills a script, which begins a run in a folder or goes on with it, at random moments of its work; then lets it end."""
    words = [sys.executable, "-c", textwrap.dedent(script)]
    events = folder / "events.jsonl"

    def size():
        return events.stat().st_size if events.exists() else 0

    draw, killed, at_work = random.Random(seed), 0, 0
    while killed < KILLS and not (folder / "result.json").exists():
        # Most of the time goes into the start: wait until there is work, then for a random moment of it.
        said, deadline = size(), time.monotonic() + 60
        child = subprocess.Popen(words)
        while child.poll() is None and size() <= said and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 0.6))
        at_work += child.poll() is None
        child.kill()
        child.wait()
        killed += 1
    assert at_work > 0, "it was never killed at work"
    print(f"{seed}: killed {killed} times, {at_work} of them at work")
    subprocess.run(words, check=True)


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
