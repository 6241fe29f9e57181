"""What `import nasfw` offers."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
import threading

import torch  # first: the compiled module shares its libtorch

from . import _options, _plugins
from ._ambient import ambient
from ._errors import ConfigError, DataError, DeviceError, Error, LostError, NotFiniteError, OutputError, RunError
from ._images import Images, images
from ._native import native
from ._options import Adam, Optimizer, Sgd
from ._progress import Line, in_notebook, on_terminal
from ._results import Run
from ._space import Group, Space, Task, found_by
from ._start import started
from ._strategy import (
    Arch,
    Batch,
    Dirichlet,
    Distribution,
    GumbelSoftmax,
    Rebuild,
    Rollback,
    Search,
    Set,
    Softmax,
    Spec,
    Strategy,
)

started()

__all__ = [
    "Adam", "Arch", "Batch", "ConfigError", "DataError", "DeviceError", "Dirichlet", "Distribution", "Error", "Group",
    "GumbelSoftmax", "Images", "LostError", "NotFiniteError", "Optimizer", "OutputError", "Rebuild", "Rollback", "Run", "RunError", "Search", "Set",
    "Sgd", "Softmax", "Space", "Spec", "Strategy", "Task", "announce", "command", "compare", "evaluate", "images", "load", "network",
    "plugins", "resume", "retrain", "run",
]

announce = _plugins.announce

#: Settings that the command line has an option of its own for.
_OPTIONS = ("seed", "epochs", "device", "threads", "data_dir", "out", "config", "preset", "name", "channels", "cells")


def command(*words, on_event=None, progress: bool | None = None) -> str:
    """Carries out a command of the command line in this process: `nasfw.command("list", "spaces")`.

    Returns what it prints. Raises one of nasfw's errors, and KeyboardInterrupt when Ctrl-C made a run save and end.
    """
    return _carried(words, on_event, progress)[1]


def _carried(words, on_event, progress):
    if progress is None:
        progress = on_terminal() or in_notebook()
    show = progress
    if progress and on_event is None and in_notebook():
        on_event, show = Line(), False
    main = threading.current_thread() is threading.main_thread()
    with ambient():
        return native.carry_out(["nasfw", *map(os.fspath, map(_word, words))], on_event, show, main)


def _word(word):
    return word if isinstance(word, (str, os.PathLike)) else str(word)


def _settings(settings: dict) -> list:
    """Keyword arguments as words: options by their names, tables as sections, the rest by `--set`."""
    words = []

    def put(key, value):
        if isinstance(value, Optimizer):
            value = value.settings()
        if isinstance(value, dict):
            for inner, of in value.items():
                put(f"{key}.{inner}", of)
        elif value is not None:
            value = os.fspath(value) if isinstance(value, os.PathLike) else value
            if isinstance(value, str) and key in ("benchmark", "trainer"):
                key += ".name"
            words.extend(("--set", f"{key}={_options.toml(list(value) if isinstance(value, tuple) else value)}"))

    for key, value in settings.items():
        if value is None:
            continue
        if key in _OPTIONS:
            words.extend((f"--{key.replace('_', '-')}", _word(value)))
        elif key == "track":
            for name in [value] if isinstance(value, str) else value:
                words.extend(("--track", name))
        else:
            put(key, value)
    return words


def _part(kind: str, part, *, lasting: bool = False) -> list:
    """A strategy or a space, by name, class, place of the class, object with options, or table of settings. `lasting`: by what
    stands here other processes must find it."""
    if part is None:
        return []
    if isinstance(part, (str, os.PathLike)):
        return [f"--{kind}", os.fspath(part)]
    if isinstance(part, (dict, Images)):
        return _settings({kind: part if isinstance(part, dict) else part.settings()})
    cls = part if isinstance(part, type) else type(part)
    announce(cls)
    _plugins.warn_if_fleeting(cls)
    options = {} if isinstance(part, type) else part.options()
    return [f"--{kind}", _plugins.place_of(cls) if lasting else cls.name, *_settings({kind: options})]


def run(
    strategy="vim",
    space=None,
    dataset=None,
    *,
    resume: bool = False,
    ranks: str | None = None,
    on_event=None,
    progress: bool | None = None,
    **settings,
) -> Run:
    """Searches for an architecture in a new run folder.

    strategy: a name, a table of settings with a `name`, a class or an object of `Strategy`, or where a class is
        (`"module:Class"`, `"file.py:Class"`).
    space: a name, a table of settings with a `name`, a TOML file that declares one, a class or an object of `Space`, or where a
        class is.
    dataset: a name, a table of settings with a `name`, `nasfw.images(…)`.
    settings: those of the command line: `epochs=2, seed=0, preset="…", data_dir="…", out="runs", name="…", device="cpu"`;
        others by their sections: `trainer={"batch_size": 64}`.
    resume: go on with the run called `name` if there is one.
    ranks: by several processes together, which `"torchrun"`, `"slurm"` (`srun`) or `"mpi"` has started with this very program.
    on_event: called with every event of the run, a dict; of several processes in the first one.

    Raises ConfigError and its like; KeyboardInterrupt when Ctrl-C made it save and end (`nasfw.resume` goes on).
    """
    words = ["run", *_part("strategy", strategy), *_part("space", space), *_part("dataset", dataset)]
    words += _flags(resume, ranks)
    return Run(_carried([*words, *_settings(settings)], on_event, progress)[0])


def resume(path, *, data_dir=None, ranks: str | None = None, on_event=None, progress: bool | None = None) -> Run:
    """Goes on with an interrupted search or training, with the same bits. A finished one is only loaded."""
    words = ["resume", _path(path), *_settings({"data_dir": data_dir}), *_flags(False, ranks)]
    return Run(_carried(words, on_event, progress)[0])


def retrain(
    what,
    *,
    space=None,
    dataset=None,
    resume: bool = False,
    ranks: str | None = None,
    on_event=None,
    progress: bool | None = None,
    **settings,
) -> Run:
    """Trains an architecture alone: a run, a file, a published cell's name, or a genotype (text or dict)."""
    words = ["retrain", _architecture(what), *_part("space", space, lasting=True), *_part("dataset", dataset)]
    words += _flags(resume, ranks)
    return Run(_carried([*words, *_settings(settings)], on_event, progress)[0])


def _flags(resume: bool, ranks: str | None) -> list[str]:
    return (["--resume"] if resume else []) + (["--ranks", ranks] if ranks else [])


def evaluate(run, *, dataset=None, data_dir=None, device=None) -> dict:
    """Measures a run, or one of its checkpoints, on the test images."""
    words = ["eval", _path(run), "--json", *_part("dataset", dataset), *_settings({"data_dir": data_dir, "device": device})]
    return json.loads(_carried(words, None, False)[1])


def compare(plan, *, jobs: int = 1, out=None, progress: bool | None = None) -> dict:
    """Carries out what of a comparison's plan (a TOML file, or a dict) is not done yet; returns what it amounts to.

    Trials run as processes of their own; strategies in Python are named by the places of their classes.
    """
    if isinstance(plan, dict):
        plan = _written(plan, pathlib.Path(out or plan.get("out", "runs")))
    words = ["compare", _path(plan), "--jobs", jobs, *_settings({"out": out})]
    with _plugins.found_by_children():
        folder = _carried(words, None, progress)[0]
    return json.loads((pathlib.Path(folder) / "comparison.json").read_text())


def _written(plan: dict, out: pathlib.Path) -> pathlib.Path:
    """A plan as a file beside the comparison's folder."""
    if "name" not in plan:
        raise ConfigError("a plan needs a `name`: the comparison's folder is called so")
    out.mkdir(parents=True, exist_ok=True)
    plan = {**plan, "strategies": [_of_plan(s) for s in plan.get("strategies", [])]}
    plan["spaces"] = [_lasting(s) if isinstance(s, type) else s for s in plan.get("spaces", [])]
    tables = {k: v for k, v in plan.items() if isinstance(v, dict)}
    lines = [f"{k} = {_options.toml(v)}" for k, v in plan.items() if k not in tables]
    lines += [f"{k} = {_options.toml(v)}" for k, v in tables.items()]
    file = out / f"{plan['name']}.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def _of_plan(strategy):
    """A strategy of a plan: classes by their places."""
    if isinstance(strategy, dict):
        named = _of_plan(strategy["name"])
        return {**named, **strategy, "name": named["name"]} if isinstance(named, dict) else strategy
    if isinstance(strategy, type):
        return {"name": _lasting(strategy), "label": strategy.name}
    return strategy


def _lasting(cls) -> str:
    """Where other processes find a class."""
    if not _plugins.is_lasting(cls):
        raise ConfigError(f"trials are processes of their own: put the class {cls.__name__} into a file")
    return _plugins.place_of(cls)


def network(
    what,
    *,
    weights=None,
    space=None,
    channels: int | None = None,
    cells: int | None = None,
    auxiliary: bool = False,
    classes: int | None = None,
    image: tuple | None = None,
    drop_path_rate: float = 0.0,
):
    """An architecture as a plain `torch.nn.Module` of torch's own layers, under nasfw's own names, in training mode.

    what: a run of a search (its result) or of a retraining, a file, a published cell's name (`"DARTS_V2"`), a genotype.
    weights: trained ones: a run of a retraining or one of its checkpoints, a safetensors file, or tensors by name. None draws
        fresh ones.
    space, channels, cells, auxiliary, classes, image: another network than the space's usual one, as of `nasfw retrain`; `image`
        is (channels, rows, columns).
    drop_path_rate: the share of paths that training drops.

    The source that it is made of is what `nasfw export --pytorch` writes. Of a space in Python it is the module that
    `Space.network` makes.
    """
    from . import networks

    weights = _path(weights) if isinstance(weights, (Run, os.PathLike)) else weights
    made = found_by(
        what if isinstance(what, dict) else _path(what),
        _space(space),
        sizes={"channels": channels, "cells": cells},
        image=image,
        classes=classes,
    )
    if made is not None:
        if auxiliary or drop_path_rate:
            raise ConfigError("networks of a space in Python have neither an auxiliary classifier nor paths that nasfw drops")
        return made.module(None if weights is None else networks.tensors_of(weights, _weights_of))
    if space is not None and not isinstance(space, (str, os.PathLike)):
        space = _part("space", space)[1]
    size = _settings({"channels": channels, "cells": cells})
    size += ["--space", space] if space is not None else []
    size += ["--auxiliary"] if auxiliary else []
    size += ["--classes", classes] if classes is not None else []
    size += ["--image", "x".join(map(str, image))] if image is not None else []
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "network.py")
        command("export", _architecture(what), "--pytorch", file, *size)
        source = pathlib.Path(file).read_text()
    return networks.make(source, weights=weights, drop_path_rate=drop_path_rate, of_run=_weights_of)


def _space(space):
    """A space in Python as it is given; None of others."""
    return space if isinstance(space, Space) or isinstance(space, type) and issubclass(space, Space) else None


def _weights_of(run) -> dict:
    """The weights of a retraining, by name."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "weights.safetensors")
        command("export", run, "--safetensors", file)
        return load_file(file)


def load(path) -> Run:
    """A run folder. Raises RunError where there is none."""
    return Run(path)


def plugins(kind: str | None = None) -> list:
    """All plugins, or those of a kind, as dicts with kind, name and summary."""
    return [
        {"kind": k, "name": n, "summary": s} for k, n, s in native.plugins() if kind is None or k == kind
    ]


def _path(what) -> str:
    return os.fspath(what.path if isinstance(what, Run) else what)


def _architecture(what) -> str:
    if isinstance(what, dict):
        return json.dumps(what)
    return _path(what)
