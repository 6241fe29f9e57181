"""Runs in the interpreter: what they leave, what they change around them, how they end."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
import torch
from conftest import HERE, KILLS, PROGRAMS, SMALL, kill_and_resume
from strategies import AnnealedPy, DartsPy, StagedPy
from test_strategies import same_bits

import nasfw


def test_all_that_there_is_can_be_had():
    from nasfw import _api

    assert sorted(nasfw.__all__) == sorted(_api.__all__)
    assert all(getattr(nasfw, name) is not None for name in nasfw.__all__)


def test_a_run_is_there_as_an_object(small):
    seen = []
    run = nasfw.run("darts", space="toy-conv", on_event=seen.append, **small)
    assert run.is_finished and run.genotype["space"] == "toy-conv"
    kinds = [e["event"] for e in seen]
    assert kinds[0] == "started" and kinds[-1] == "finished"
    # What is kept says when it happened.
    kept = [{k: v for k, v in e.items() if k != "time"} for e in run.records("architecture")]
    assert [e for e in seen if e["event"] == "architecture"] == kept
    assert all("T" in e["time"] for e in run.records())
    assert nasfw.load(run.path).result == run.result
    assert repr(run) == f"nasfw.load({str(run.path)!r})"
    frame = run.events("progress")
    assert {"step", "epoch", "meters.train.loss"} <= set(frame.columns)
    weights = run.weights()
    sums = weights.groupby(["step", "group", "row"]).weight.sum()
    assert ((sums - 1).abs() < 1e-5).all() and len(weights) > 0
    assert run._repr_svg_().lstrip().startswith("<svg") or "<svg" in run._repr_svg_()
    assert "<svg" in run.figure("entropy")._repr_svg_()


def test_the_command_line_gives_the_same_bits(small, command, tmp_path):
    here = nasfw.run(AnnealedPy, space="toy-conv", name="here", **small)
    from nasfw._api import _settings

    rest = {k: v for k, v in small.items() if k not in ("out", "progress")}
    command("run", "--strategy", "strategies:AnnealedPy", "--space", "toy-conv", "--name", "there", *_settings(rest))
    same_bits(here.path, tmp_path / "runs/there")


def modes():
    return [
        ("no_grad", torch.no_grad),
        ("inference_mode", torch.inference_mode),
        ("autocast", lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    ]


@pytest.mark.parametrize("mode", modes(), ids=lambda m: m[0])
@pytest.mark.parametrize("strategy", [DartsPy, "darts"])
def test_modes_around_a_run_change_nothing(mode, strategy, small):
    plain = nasfw.run(strategy, space="toy-conv", name="plain", **small)
    with mode[1]():
        before = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
        inside = nasfw.run(strategy, space="toy-conv", name="inside", **small)
        assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
    same_bits(plain.path, inside.path)


def test_everything_is_put_back(small):
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False)
    torch.manual_seed(1)
    random.seed(1)
    state, own, ctrl_c = torch.get_rng_state(), random.getstate(), signal.getsignal(signal.SIGINT)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        nasfw.run(DartsPy, space="toy-conv", **{**small, "threads": 1, "trainer": {"batch_size": 8, "deterministic": True}})
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(default)
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(state, torch.get_rng_state()) and random.getstate() == own
    assert signal.getsignal(signal.SIGINT) is ctrl_c


def test_threads_of_the_interpreter_change_nothing(small):
    before = torch.get_num_threads()
    runs = []
    for n in (1, 2):
        torch.set_num_threads(n)
        runs.append(nasfw.run("darts", space="toy-conv", name=f"threads{n}", **small).path)
    torch.set_num_threads(before)
    same_bits(*runs)


HOOKS = ["step", "distribution", "epoch_start", "epoch_end", "derive", "pictures", "state", "supernet_options", "claims"]


@pytest.mark.parametrize("hook", HOOKS)
def test_exceptions_come_out_as_they_were(hook, small):
    class Mine(Exception):
        pass

    def fail(self, *_):
        raise Mine(hook)

    failing = type("Failing", (DartsPy,), {hook: fail, "__doc__": "Fails."})
    with pytest.warns(UserWarning, match="put the class|Put the class"), pytest.raises(Mine, match=hook) as caught:
        nasfw.run(failing, space="toy-conv", name="failing", **small)
    assert any(entry.name == "fail" for entry in caught.traceback)
    folder = small["out"] / "failing"
    # Nothing is left of what never began; what had begun is a whole run.
    if folder.exists():
        assert json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda s: s.loss(s.theta, [torch.zeros(2, 2)], s.batch("train")), "weights of an architecture of shapes"),
        (lambda s: s.loss(s.theta[:-1], s.sample(), s.batch("train")), "."),
        (lambda s: s.batch("valid"), "no part of the images"),
        (lambda s: s.descend_phi(torch.zeros(3)), "."),
        (lambda s: s.set_phi(torch.zeros(3)), "has the shape"),
        (lambda s: s.spec.softmax(torch.zeros(3)), "a flat vector of shape"),
        (lambda s: s.one_hot([[[99]]]), "."),
        (lambda s: s.loss(s.theta.to("meta"), s.sample(), s.batch("train")), "."),
    ],
)
def test_wrong_arguments_are_exceptions(wrong, says, small):
    class Slip(DartsPy):
        """A step with a slip."""

        def step(self, search):
            wrong(search)

    with pytest.warns(UserWarning), pytest.raises(Exception, match=says):
        nasfw.run(Slip, space="toy-conv", **small)


def test_a_search_is_good_for_its_call_only(small):
    kept = []

    class Keeps(DartsPy):
        """Keeps what was lent."""

        def step(self, search):
            kept.append(search)
            super().step(search)

    with pytest.warns(UserWarning):
        nasfw.run(Keeps, space="toy-conv", **small)
    with pytest.raises(RuntimeError, match="the call that it was given to is over"):
        kept[0].theta


SCRIPT = """
    import sys, nasfw
    sys.path.insert(0, {here!r})
    from strategies import DartsPy
    try:
        nasfw.run(DartsPy, space="toy-conv", dataset="synthetic", epochs=100000, threads=1, name="long", out={out!r},
                  on_event=lambda e: print(e["event"], flush=True))
    except KeyboardInterrupt as e:
        print("interrupted:", e, flush=True)
"""


def begun(out):
    script = textwrap.dedent(SCRIPT).format(here=str(HERE), out=str(out))
    env = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env)
    for line in child.stdout:
        if line.startswith("progress"):
            return child
    raise AssertionError("the run did not begin")


def test_ctrl_c_saves_and_raises(tmp_path):
    child = begun(tmp_path)
    child.send_signal(signal.SIGINT)
    said, _ = child.communicate(timeout=120)
    assert "interrupted: " in said and child.returncode == 0, said
    assert list((tmp_path / "long/checkpoints").iterdir())


def test_sigterm_saves_and_ends(tmp_path):
    child = begun(tmp_path)
    child.terminate()
    child.communicate(timeout=120)
    assert child.returncode == -signal.SIGTERM
    assert list((tmp_path / "long/checkpoints").iterdir())


KILLED = """
    import sys, nasfw
    sys.path.insert(0, {here!r})
    from strategies import {strategy}
    nasfw.run({strategy}, space="toy-conv", name="killed", resume=True, out={out!r}, **{words!r})
"""


@pytest.mark.parametrize("strategy", ["DartsPy", "ScorePy", "StagedPy"])
def test_kill_and_resume_give_the_same_bits(strategy, tmp_path):
    import strategies

    words = {**SMALL, "epochs": 2 + KILLS, "trainer": {"batch_size": 8, "checkpoint_every": 3}}
    whole = nasfw.run(getattr(strategies, strategy), space="toy-conv", name="whole", out=tmp_path, **words)
    kill_and_resume(KILLED.format(here=str(HERE), strategy=strategy, out=str(tmp_path), words=words), tmp_path / "killed", strategy)
    same_bits(whole.path, tmp_path / "killed")


TOGETHER = """
    import sys, nasfw
    sys.path.insert(0, {here!r})
    from strategies import DartsPy
    run = nasfw.run(DartsPy, space="toy-conv", name="several", ranks="torchrun", out={out!r}, **{words!r})
    print(run.path, run.result["steps"])
"""


def test_two_processes_give_the_bits_of_one(small, tmp_path):
    words = {**SMALL, "trainer": {"batch_size": 8, "micro_batch": 4}}
    whole = nasfw.run(DartsPy, space="toy-conv", name="whole", out=tmp_path, **words)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = textwrap.dedent(TOGETHER).format(here=str(HERE), out=str(tmp_path), words=SMALL)
    env = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = [
        subprocess.Popen([sys.executable, "-c", script], env={**env, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [child.communicate(timeout=120)[0] for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert said[0] == said[1] == f"{tmp_path / 'several'} {whole.result['steps']}\n"
    same_bits(whole.path, tmp_path / "several")


def test_a_later_stage_is_resumed_as_it_was(small):
    """What the distribution and the supernet are then follows from the state that is put back."""
    small |= {"epochs": 4, "trainer": {"batch_size": 8, "log_every": 1}}
    whole = nasfw.run(StagedPy, space="toy-conv", **small)
    stages = [e["step"] for e in whole.records("progress") if e["epoch"] == 3]
    assert len(stages) > 4 and whole.records("control")

    def stop_at(step):
        def hear(event):
            if event["event"] == "progress" and event["step"] == step:
                signal.raise_signal(signal.SIGINT)

        return hear

    with pytest.raises(KeyboardInterrupt):
        nasfw.run(StagedPy, space="toy-conv", name="stopped", on_event=stop_at(stages[1]), **small)
    with pytest.raises(KeyboardInterrupt):
        nasfw.resume(small["out"] / "stopped", on_event=stop_at(stages[3]), progress=False)
    nasfw.resume(small["out"] / "stopped", progress=False)
    same_bits(whole.path, small["out"] / "stopped")


def test_the_plain_program_says_who_can_read_a_run_in_python(small):
    run = nasfw.run(AnnealedPy, space="toy-quadratic", **small)
    done = subprocess.run([PROGRAMS / "nasfw", "resume", run.path], capture_output=True, text=True)
    assert done.returncode == 4 and f"python -m nasfw resume {run.path}" in " ".join(done.stderr.split()).replace("- ", "-"), done.stderr


def test_nothing_leaks(small):
    """Steps leave no tensor behind, whatever they ask for."""
    import gc

    count = []

    class Counts(AnnealedPy):
        """Counts tensors."""

        def epoch_end(self, search):
            gc.collect()
            count.append(sum(isinstance(o, torch.Tensor) for o in gc.get_objects()))

    with pytest.warns(UserWarning):
        nasfw.run(Counts, space="toy-quadratic", **{**small, "epochs": 6})
    assert count[-1] <= count[1], count


def test_a_comparison_of_python_and_rust(small, tmp_path):
    plan = {
        "name": "both",
        "seeds": 2,
        "strategies": [DartsPy, "darts"],
        "spaces": ["toy-quadratic"],
        "datasets": ["synthetic"],
        "budgets": [{"unit": "steps", "amount": 4}],
        "set": {"trainer": {"batch_size": 8}},
    }
    found = nasfw.compare(plan, out=tmp_path / "comparisons")
    assert found
    environment = dict(os.environ)
    again = nasfw.compare(plan, out=tmp_path / "comparisons")
    assert again == found
    assert dict(os.environ) == environment
