"""Search spaces written in Python: under strategies of Rust and of Python, alone, under the suite's eyes."""

import json

import pytest
import torch
from conftest import HERE, KILLS, SMALL, kill_and_resume
from spaces import ChainSpace, GraphSpace, Mixed
from strategies import DartsPy
from test_strategies import same_bits
from torch import nn

import nasfw
from nasfw import testing
from nasfw._space import supernet_of

#: Relaxed, learned dependent, with derivatives of second order, wrapped, by a score function, hard samples with masks, trained from
#: scratch.
ALL = ["darts", {"name": "darts", "order": 2}, "vim", "drnas", "sdarts-rs", "enas", "rsps", {"name": "random", "score": "train"}]


@pytest.mark.parametrize(
    ("space", "strategy"),
    [*((ChainSpace, strategy) for strategy in ALL), *((GraphSpace, strategy) for strategy in ("snas", "gdas", "vim", "rsps"))],
)
def test_strategies_of_rust_search_it(strategy, space, small):
    run = nasfw.run(strategy, space=space, **small)
    assert run.is_finished and [c["name"] for c in run.genotype["cells"]][0] in ("chain", "cell")
    assert run.config["space"]["class"].endswith(f"spaces:{space.__name__}")


def test_gradients_are_the_modules_own(small):
    """The border changes nothing: loss and slopes are those of the module with its own parameters."""
    torch.manual_seed(0)
    images, labels = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 3])
    weights = torch.softmax(torch.randn(3, 3), 1)
    asked = {"channels": None, "cells": None, "allowed": None, "partial_channels": None, "auxiliary_skip": False}
    asked |= {"skip_dropout": False, "drop_path": False, "batch_norm": "running"}
    net = supernet_of(ChainSpace(), (3, 8, 8, 4), asked)
    flat, stats = net.start(7), net.start_stats(7)

    torch.manual_seed(7)
    module = Mixed(3, 4, 4, 3)
    assert torch.equal(flat.float(), torch.cat([p.detach().reshape(-1) for p in module.parameters()]))
    module.drop.p = 0.0
    nn.functional.cross_entropy(module(images, [weights]), labels).backward()
    wanted = torch.cat([p.grad.reshape(-1) for p in module.parameters()])

    net._module.drop.p = 0.0
    theta = flat.float().requires_grad_()
    views = [v.view(shape) for v, (_, shape) in zip(theta.split([torch.Size(s).numel() for _, s in net.params]), net.params)]
    moved = stats.float()
    kept = [v.view(shape) for v, (_, shape) in zip(moved.split([torch.Size(s).numel() for _, s in net.stats]), net.stats)]
    output = net.forward(views, kept, images, ([weights], None, None, {}), True, 1)
    (found,) = torch.autograd.grad(nn.functional.cross_entropy(output, labels), theta)
    assert torch.equal(found, wanted)
    # Running statistics moved in the run's own vector, as they did in the module.
    own = torch.cat([b.reshape(-1) for b in module.buffers() if b.is_floating_point()])
    assert torch.equal(moved, own) and not torch.equal(own, stats.float())


def test_the_suite_accepts_them():
    for space in (ChainSpace, GraphSpace):
        testing.conforms(space)
    found = {f["invariant"]: f for f in testing.findings(GraphSpace)}
    assert all(f["broken"] is None for f in found.values())


class Remembers(nn.Module):
    """Its output depends on how often it was called."""

    def __init__(self, classes):
        super().__init__()
        self.head, self.calls = nn.Linear(3, classes), 0

    def forward(self, images, weights):
        self.calls += 1
        return self.head(images.mean((2, 3))) * weights[0].sum() * self.calls


def test_the_suite_finds_what_is_wrong():
    class Wrong(ChainSpace):
        """A module that is no function."""

        def supernet(self, task):
            return Remembers(task.classes)

    with pytest.raises(AssertionError, match="forward-is-pure"):
        testing.conforms(Wrong)


def test_from_the_search_to_the_network(small, tmp_path):
    """Search, training alone, evaluation, the module with its weights: all say the same."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (48, 8, 8, 3), dtype=torch.uint8, generator=draw).numpy()
    y = torch.arange(48).remainder(4).numpy()
    x[:, 0, 0, 0] = y * 60
    data = nasfw.images((x, y), (x, y), folder=tmp_path / "data")
    small["dataset"] = data
    found = nasfw.run("darts", space=ChainSpace(channels=5), **small)
    trained = nasfw.retrain(found, channels=6, **{k: small[k] for k in ("device", "threads", "out", "progress")})
    # The recipe is the space's.
    assert trained.config["trainer"]["epochs"] == 3 and trained.config["trainer"]["batch_size"] == 8
    assert trained.config["space"]["of"].endswith("spaces:ChainSpace") and "python" not in trained.path.name

    test = nasfw.evaluate(trained)
    net = nasfw.network(trained, weights=trained).eval()
    assert net.stem[0].out_channels == 6
    inputs = json.loads((trained.path / "manifest.json").read_text())["inputs"]
    mean, std = (torch.tensor(inputs[k]).view(1, -1, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        logits = net((torch.from_numpy(x).permute(0, 3, 1, 2) / 255 - mean) / std)
    labels = torch.from_numpy(y)
    assert (logits.argmax(1) == labels).float().mean().item() == pytest.approx(test["test"]["accuracy"], abs=1e-6)
    assert nn.functional.cross_entropy(logits, labels).item() == pytest.approx(test["test"]["loss"], rel=1e-4)

    fresh = nasfw.network(found.genotype, space=ChainSpace(channels=3), image=(3, 8, 8), classes=4)
    assert fresh.stem[0].out_channels == 3
    # As what a retraining trains: channels of the search are the search's, images are the run's unless others are asked for.
    net = nasfw.network(found)
    assert net.stem[0].out_channels == 4 and net.head.out_features == 4
    assert nasfw.network(found, classes=7).head.out_features == 7
    assert nasfw.network(found, image=(1, 8, 8)).stem[0].in_channels == 1
    with pytest.raises(ValueError, match="do not fit"):
        nasfw.network(found, weights=trained)
    with pytest.raises(nasfw.ConfigError, match="modules of Python"):
        nasfw.command("export", trained.path, "--pytorch", tmp_path / "network.py")
    assert "parameters" in nasfw.command("eval", trained.path)


def test_other_processes_go_on(command, small, tmp_path):
    words = ["run", "--strategy", "darts", "--space", f"{HERE / 'spaces.py'}:ChainSpace", "--set", "space.channels=3"]
    words += ["--dataset", "synthetic", "--epochs", 1, "--device", "cpu", "--set", "dataset.images=32"]
    command(*words, "--name", "found")
    assert json.loads((tmp_path / "runs/found/run.json").read_text())["space"]["channels"] == 3
    command("retrain", "runs/found", "--epochs", 1, "--name", "alone")
    assert "top-1" in command("eval", "runs/alone").stdout
    said = command("describe", f"{HERE / 'spaces.py'}:ChainSpace").stdout
    assert "# Channels.\nchannels = 4" in said and "Three mixed operations" in said, said
    assert "chain" in command("genotype", "runs/found").stdout
    command("draw", "runs/found", "-o", "cell.svg")
    done = command("run", "--space", f"{HERE / 'spaces.py'}:Mixed", check=False)
    assert "is no space" in done.stderr, done.stderr


def test_a_genotype_leads_back(small):
    run = nasfw.run({"name": "random"}, space=GraphSpace, **small)
    cell, joined = run.genotype["cells"]
    assert [len(node["inputs"]) for node in cell["nodes"]] == [1, 2] and cell["output"] == [2]
    assert [len(node["inputs"]) for node in joined["nodes"]] == [2]


class NoNetwork(GraphSpace):
    """Has no networks alone."""


class Fails(nn.Module):
    """Raises when it is asked."""

    def __init__(self, how):
        super().__init__()
        self.how, self.head = how, nn.Linear(3, 4)
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))

    def forward(self, images, weights):
        if self.how == "raises":
            raise ZeroDivisionError("my own fault")
        if self.how == "counts":
            self.seen += 1
        logits = self.head(images.mean((2, 3)))
        return logits[:, :2] if self.how == "shape" else logits


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [("raises", ZeroDivisionError, "my own fault"), ("counts", ValueError, "buffer `seen`"), ("shape", ValueError, "logits of shape")],
)
def test_faults_of_a_module_are_exceptions(how, error, says, small):
    class Faulty(ChainSpace):
        """A space whose module fails."""

        def supernet(self, task):
            return Fails(how)

    small["dataset"] = {"name": "synthetic", "classes": 4}
    with pytest.warns(UserWarning), pytest.raises(error, match=says):
        nasfw.run("darts", space=Faulty, name="faulty", **small)
    assert (small["out"] / "faulty/run.json").is_file()


def test_what_a_module_can_not_do_is_refused(small):
    with pytest.raises(ValueError, match="`partial_channels`"):
        nasfw.run("pc-darts", space=ChainSpace, **small)
    found = nasfw.run("random", space=NoNetwork, **small)
    with pytest.raises(NotImplementedError, match="implement `network"):
        nasfw.retrain(found, dataset="synthetic", **{k: small[k] for k in ("device", "threads", "out", "progress")})

    class Texts(ChainSpace):
        """Rows that are texts."""

        def groups(self):
            return {"chain": {"layer": "conv"}}

    with pytest.warns(UserWarning), pytest.raises(TypeError, match="must have a list of names"):
        nasfw.run("darts", space=Texts, **small)


def test_a_comparison_of_spaces(small, tmp_path):
    plan = {
        "name": "spaces",
        "seeds": 1,
        "strategies": ["darts", DartsPy],
        "spaces": [ChainSpace, "toy-conv"],
        "datasets": ["synthetic"],
        "budgets": [{"unit": "steps", "amount": 2}],
        "set": {"trainer": {"batch_size": 8}},
    }
    assert nasfw.compare(plan, out=tmp_path / "comparisons")


KILLED = """
    import sys, nasfw
    sys.path.insert(0, {here!r})
    from spaces import {space}
    nasfw.run("darts", space={space}, name="killed", resume=True, out={out!r}, **{words!r})
"""


def test_kill_and_resume_give_the_same_bits(tmp_path):
    words = {**SMALL, "epochs": 2 + KILLS, "trainer": {"batch_size": 8, "checkpoint_every": 3}}
    whole = nasfw.run("darts", space=ChainSpace, name="whole", out=tmp_path, **words)
    script = KILLED.format(here=str(HERE), space="ChainSpace", out=str(tmp_path), words=words)
    kill_and_resume(script, tmp_path / "killed", "ChainSpace")
    same_bits(whole.path, tmp_path / "killed")
