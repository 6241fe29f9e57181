"""Strategies written in Python beside the same ones in Rust, and under the conformance suite."""

import json
import os
import pathlib
import subprocess

import pytest
import torch
from conftest import PROGRAMS
from safetensors.torch import load_file
from strategies import AnnealedPy, DartsPy, HardPy, ScorePy, StagedPy

import nasfw
from nasfw import testing
from nasfw._api import _part, _settings


def newest(run) -> dict:
    """All tensors of a run's newest checkpoint."""
    return load_file(max(pathlib.Path(run).glob("checkpoints/*.safetensors")))


def events(run) -> list:
    """What happened, without what depends on the clock and on how often the run was interrupted."""
    kept = []
    for line in (pathlib.Path(run) / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] in ("started", "checkpoint", "interrupted", "finished"):
            continue
        for key in ("seconds", "time", "peak_memory", "images_per_second", "memory"):
            event.pop(key, None)
        kept.append(event)
    return kept


def same_bits(one, other):
    """Events, θ, φ, and states of optimizers."""
    a, b = newest(one), newest(other)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert events(one) == events(other)


@pytest.mark.parametrize("space", ["toy-conv", "nasbench1shot1-s3"])
@pytest.mark.parametrize(
    ("mine", "program", "theirs"), [(DartsPy, "nasfw", "darts"), (AnnealedPy, "own-strategy", "annealed")]
)
def test_it_is_the_rust_strategy_bit_by_bit(mine, program, theirs, space, small, tmp_path):
    if space != "toy-conv":
        small |= {"epochs": 1, "dataset": {"name": "synthetic", "images": 48}, "space_": {"channels": 4}}
        space = {"name": space, "channels": small.pop("space_")["channels"]}
    ours = nasfw.run(mine, space=space, name="ours", **small)
    words = [PROGRAMS / program, "run", "--strategy", theirs, "--name", "theirs", "--out", tmp_path / "runs"]
    words += _part("space", space)

    rest = {k: v for k, v in small.items() if k not in ("out", "progress")}
    subprocess.run(list(map(str, [*words, *_settings(rest)])), check=True, capture_output=True)
    same_bits(ours.path, tmp_path / "runs/theirs")


#: The whole suite takes seconds for each: two of them, or all where all is asked for (`cargo xtask test --all`).
MANY = [StagedPy, ScorePy] if os.environ.get("ALL_PAIRS") != "1" else [AnnealedPy, DartsPy, HardPy, StagedPy, ScorePy]


@pytest.mark.parametrize("strategy", MANY)
def test_the_suite_accepts_it(strategy):
    testing.conforms(strategy)


def test_the_suite_finds_what_is_wrong():
    class Wrong(ScorePy):
        """The architecture climbs, and the baseline is not kept."""

        keeps = ()

        def step(self, search):
            choice = search.draw("architecture")
            val = search.batch("val")
            loss = search.loss(search.theta.detach(), search.one_hot(choice), val).item()
            surrogate = (self.baseline - loss) * search.log_prob(choice)
            search.descend_phi(*search.gradients(surrogate, [search.phi]))
            self.baseline = 0.5 * (self.baseline + loss)
            train = search.batch("train")
            loss = search.loss(search.theta, search.one_hot(search.draw("weights")), train)
            search.descend_theta(*search.gradients(loss, [search.theta]))

    with pytest.raises(AssertionError) as broken:
        testing.conforms(Wrong)
    assert "architecture-gradient" in str(broken.value) and "resume" in str(broken.value), broken.value


@pytest.mark.parametrize("wrapper", ["sdarts-rs", "darts-es", "lambda-darts", "sdarts-adv"])
def test_wrappers_wrap_it(wrapper, small):
    nasfw.announce(DartsPy)
    run = nasfw.run({"name": wrapper, "base": {"name": "darts-py"}}, space="toy-conv", **small)
    assert run.is_finished
    assert run.config["strategy"]["base"]["plugin"] == "darts-py"


def test_options_are_checked(small):
    nasfw.announce(AnnealedPy)
    with pytest.raises(nasfw.ConfigError, match="no such option"):
        nasfw.run({"name": "annealed-py", "colt": 1.0}, space="toy-conv", **small)
    with pytest.raises(nasfw.ConfigError, match="must be a number"):
        nasfw.run({"name": "annealed-py", "cold": "warm"}, space="toy-conv", **small)
    with pytest.raises(TypeError, match="has no option `warm`"):
        AnnealedPy(warm=1.0)
    run = nasfw.run(AnnealedPy(cold=0.5), space="toy-conv", **small)
    assert run.config["strategy"]["cold"] == 0.5


def test_it_is_found_by_its_place(command, tmp_path):
    words = ["run", "--strategy", "strategies:AnnealedPy", "--space", "toy-quadratic", "--dataset", "synthetic", "--epochs", 1, "--device", "cpu"]
    command(*words, "--name", "module", "--set", "strategy.cold=0.2")
    file = pathlib.Path(__file__).parent / "strategies.py"
    words[2] = f"{file}:AnnealedPy"
    command(*words, "--name", "file")
    config = json.loads((tmp_path / "runs/module/run.json").read_text())["strategy"]
    assert (config["plugin"], config["class"], config["cold"]) == ("annealed-py", "strategies:AnnealedPy", 0.2)
    said = command("describe", "strategies:AnnealedPy").stdout
    assert "# Temperature at the end.\ncold = 0.1" in said and "Softmax with a temperature" in said, said
    done = command("run", "--strategy", "strategies:NoSuch", check=False)
    assert done.returncode != 0 and "can't be imported" in done.stderr, done.stderr
    done = command("run", "--strategy", "strategies:Rows", check=False)
    assert "is no strategy" in done.stderr, done.stderr
