"""Search spaces written in Python: supernets and networks that are any `torch.nn.Module`."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import pathlib

import torch
from torch import nn
from torch.func import functional_call

from . import _options
from ._errors import RunError
from ._native import native
from ._plugins import Plugin, announce, find, kind_of_plugin, place_of


@dataclasses.dataclass(frozen=True)
class Task:
    """What a network is for."""

    #: Channels of an image.
    channels: int
    #: Rows of an image.
    height: int
    #: Columns of an image.
    width: int
    #: Number of classes.
    classes: int


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of decisions that are more than one choice of an operation each."""

    #: Candidates by the rows' names.
    rows: dict
    #: How many candidates of each row an architecture keeps.
    keep: int = 1
    #: Whether candidates are sources that a row reads from, and not operations.
    topology: bool = False


@kind_of_plugin
class Space(Plugin):
    """A search space: what there is to decide, and the modules that decisions are about.

    Options are annotated attributes with defaults, as those of a `Strategy`:

        class Chain(nasfw.Space):
            \"\"\"Three mixed operations in a row.\"\"\"

            # Channels.
            channels: int = 8

            def groups(self):
                return {"chain": {f"layer {i}": ["skip", "conv"] for i in (1, 2, 3)}}

            def supernet(self, task):
                return Mixed(task.channels, self.channels, task.classes)

            def network(self, choice, task):
                return Plain(task.channels, self.channels, task.classes, choice["chain"])
    """

    kind = "space"
    #: Whether a batch of a single image can be trained on; not where a batch norm sees one pixel of an image.
    takes_one_image = True
    #: How networks are trained alone unless something else is asked for: sections `strategy`, `trainer` and `space`, laid over
    #: the settings of `nasfw retrain` (`{"trainer": {"epochs": 100}}`).
    recipe: dict = {}

    def groups(self) -> dict:
        """What there is to decide: per group its rows, per row the names of its candidates.

        A row's name is a text, or a pair of states, (0, 1), that it is an edge between; then all rows of the group are edges.
        A `Group` in the place of the rows keeps more than one candidate of each.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `groups`")

    def supernet(self, task: Task) -> nn.Module:
        """The module that holds all candidates: `forward(images, weights)` gives logits `[n, classes]`.

        `weights` has a matrix `[rows, candidates]` per group; its numbers say how much of each candidate there is. Where
        `forward` takes `active`, it gets `[group][row][candidate]`, false where nothing needs to be computed, or None; where it
        takes `offsets`, what is to be added to every number that a row puts out, `[rows]` per group, or None.

        What strategies ask of a supernet beyond that (`partial_channels`, `auxiliary_skip`, `skip_dropout`, `drop_path`) is
        refused unless this method takes an argument of that name; `forward` then gets the rate under the same name.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `supernet`")

    def network(self, choice: dict, task: Task) -> nn.Module:
        """The network of an architecture alone: `forward(images)` gives logits `[n, classes]`.

        `choice` has per group and row the name of the candidate that is kept, or a list of names where a row keeps several.
        Where `forward` takes `drop_path`, it gets the rate of drop path.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no networks of architectures alone: let it implement `network(choice, task)`"
        )


# ---- what the border asks ------------------------------------------------------------------------------------------


def _rows(space) -> dict:
    """Per group its name and `Group`, checked."""
    groups = space.groups()
    if not isinstance(groups, dict) or not groups:
        raise TypeError(f"`groups()` must return a dict with a group at least, not {groups!r}")
    found = {}
    for name, group in groups.items():
        group = group if isinstance(group, Group) else Group(group)
        if not isinstance(group.rows, dict) or not group.rows:
            raise TypeError(f"group `{name}` must be a dict with a row at least, not {group.rows!r}")
        for row, candidates in group.rows.items():
            if isinstance(candidates, str) or not all(isinstance(c, str) for c in candidates):
                raise TypeError(f"row {row!r} of group `{name}` must have a list of names, not {candidates!r}")
        found[str(name)] = group
    return found


def groups_of(space) -> list:
    """The groups of a space as the framework has them."""
    found = []
    for name, group in _rows(space).items():
        edges = [row for row in group.rows if isinstance(row, tuple)]
        if edges and len(edges) != len(group.rows):
            raise TypeError(f"group `{name}`: either all rows are edges (pairs of states) or none is")
        found.append(
            {
                "name": name,
                "role": "topology" if group.topology else "operations",
                "rows": [
                    {"name": _name(row), "candidates": list(candidates), "keep": group.keep}
                    for row, candidates in group.rows.items()
                ],
                "edges": {"ends": _ends(name, edges)} if edges else None,
            }
        )
    return found


def _name(row) -> str:
    return f"{row[0]}->{row[1]}" if isinstance(row, tuple) else str(row)


def _ends(name: str, edges: list) -> list:
    """Edges of a cell: inputs are the first states, and every other state is led into."""
    for edge in edges:
        if len(edge) != 2 or not all(isinstance(state, int) for state in edge) or not 0 <= edge[0] < edge[1]:
            raise ValueError(f"group `{name}`: {edge!r} is no edge from a state to a later one")
    targets = {to for _, to in edges}
    missing = [state for state in range(min(targets), max(targets)) if state not in targets]
    if missing:
        raise ValueError(f"group `{name}`: no edge leads into state {missing[0]}")
    return [list(edge) for edge in edges]


def recipe_of(space) -> str:
    """How networks are trained alone, as TOML."""
    unknown = set(space.recipe) - {"strategy", "trainer", "space"}
    if unknown:
        raise ValueError(f"recipe: `{unknown.pop()}` is not the space's to say; `strategy`, `trainer` and `space` are")
    # There is one classifier, and paths that could be dropped are the module's own affair.
    usual = {"strategy": {"drop_path": 0.0}, "space": {"auxiliary": 0.0}}
    sections = {name: {**usual.get(name, {}), **space.recipe.get(name, {})} for name in ("strategy", "trainer", "space")}
    return "".join(f"{name} = {_options.toml(section)}\n" for name, section in sections.items())


def choice_of(space, kept: list) -> dict:
    """What an architecture keeps, by the names of groups, rows and candidates."""
    choice = {}
    for (name, group), rows in zip(_rows(space).items(), kept):
        choice[name] = {}
        for (row, candidates), columns in zip(group.rows.items(), rows):
            names = [list(candidates)[column] for column in columns]
            choice[name][row] = names[0] if group.keep == 1 else names
    return choice


def _sized(space, sizes: dict):
    """The space with other sizes where they are asked for, which must be options of it."""
    sizes = {key: value for key, value in sizes.items() if value is not None}
    known = {option.name for option in _options.of_class(type(space))}
    for key in sizes:
        if key not in known:
            raise ValueError(f"`{key}` is asked for, and {type(space).__name__} has no option of that name")
    return type(space)(**{**space.options(), **sizes}) if sizes else space


#: What a strategy asks of a supernet when it asks nothing.
_NOTHING = {"allowed": None, "partial_channels": None, "auxiliary_skip": False, "skip_dropout": False, "drop_path": False}


def supernet_of(space, task: tuple, asked: dict) -> Functional:
    """The supernet of a space. Masks of candidates are the border's; of batch norms it takes what is asked for."""
    space = _sized(space, {key: asked[key] for key in ("channels", "cells")})
    known = inspect.signature(space.supernet).parameters
    words = {}
    for key, nothing in _NOTHING.items():
        if asked[key] == nothing or (key == "partial_channels" and asked[key] == 1):
            continue
        if key in known:
            words[key] = asked[key]
        elif key != "allowed":
            raise ValueError(
                f"the strategy asks the supernet for `{key}`, and `supernet` of {type(space).__name__} takes no such argument"
            )
    return Functional(
        lambda: space.supernet(Task(*task), **words),
        classes=task[3],
        allowed=asked["allowed"],
        rates=set(words) & {"auxiliary_skip", "skip_dropout", "drop_path"},
        running=asked["batch_norm"] == "running",
    )


def network_of(space, task: tuple, what: dict) -> Functional:
    """The network of an architecture alone."""
    space = _sized(space, {key: what[key] for key in ("channels", "cells")})
    choice = choice_of(space, what["kept"])
    return Functional(
        lambda: space.network(choice, Task(*task)), classes=task[3], rates={"drop_path"}, running=True, alone=True
    )


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device):
    """torch's generators begin at a seed, and are as they were afterwards."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, before):
            generator.set_state(state)


class Functional:
    """A module as a function of its parameters and statistics."""

    def __init__(self, make, *, classes, allowed=None, rates=(), running=False, alone=False):
        self._make, self._classes, self._allowed, self._rates = make, classes, allowed, set(rates)
        self._running, self._alone = running, alone
        self._module = module = self._built(0)
        self._takes = set(inspect.signature(module.forward).parameters)
        lacking = [rate for rate in rates if rate not in self._takes and not alone]
        if lacking:
            raise TypeError(f"`forward` of {type(module).__name__} must take `{lacking[0]}`, which `supernet` was asked for")
        params, stats, self._fixed = self._parts(module)
        #: Names and shapes of what is trained, and of what is kept beside it.
        self.params = [(name, list(p.shape)) for name, p in params.items()]
        self.stats = [(name, list(p.shape)) for name, p in stats.items()]
        self._masks = {}

    def _built(self, seed: int) -> nn.Module:
        with _seeded(seed, torch.device("cpu")):
            module = self._make()
        if not isinstance(module, nn.Module):
            raise TypeError(f"a torch.nn.Module is needed, not a {type(module).__name__}")
        for part in module.modules():
            if not isinstance(part, nn.modules.batchnorm._BatchNorm):
                continue
            if not self._running:
                # Statistics of the batch at hand, always: architectures of a supernet share none.
                part.track_running_stats = False
                part.running_mean = part.running_var = part.num_batches_tracked = None
            elif part.momentum is None:
                raise ValueError("a batch norm with `momentum=None` counts batches, and counts are not kept: give a number")
        return module

    @staticmethod
    def _parts(module: nn.Module) -> tuple[dict, dict, dict]:
        """What is trained; what moves by itself or is not trained; what never changes."""
        params, stats, fixed = {}, {}, {}
        for name, tensor in module.named_parameters():
            if not tensor.is_floating_point():
                raise TypeError(f"parameter `{name}` is of {tensor.dtype}; floating-point numbers can be trained")
            (params if tensor.requires_grad else stats)[name] = tensor.detach()
        for name, tensor in module.named_buffers():
            (stats if tensor.is_floating_point() else fixed)[name] = tensor.detach()
        return params, stats, fixed

    def start(self, seed: int) -> torch.Tensor:
        """Parameters of a fresh module, flat."""
        return self._fresh(seed, 0, self.params)

    def start_stats(self, seed: int) -> torch.Tensor:
        """The same of its statistics."""
        return self._fresh(seed, 1, self.stats)

    def _fresh(self, seed: int, part: int, wanted: list) -> torch.Tensor:
        tensors = self._parts(self._built(seed))[part]
        if [(name, list(t.shape)) for name, t in tensors.items()] != wanted:
            raise ValueError("the module has other parameters each time that it is made")
        flat = [t.reshape(-1).to("cpu", torch.float64) for t in tensors.values()]
        return torch.cat(flat) if flat else torch.zeros(0)

    def forward(self, params, stats, images, arch, train: bool, seed: int) -> torch.Tensor:
        """Logits of images at weights."""
        weights, active, offsets, scalars = arch
        words = {name: x for key, x in scalars.items() if (name := key.replace("-", "_")) in self._rates & self._takes}
        if self._alone:
            if scalars.get("drop-path", 0.0) > 0.0 and "drop_path" not in self._takes:
                raise ValueError("drop path is asked for, and `forward` takes no `drop_path`: `--set strategy.drop_path=0`")
            inputs = (images,)
        else:
            active = self._exist(active)
            inputs = (images, self._masked(weights, active))
            if "active" in self._takes:
                words["active"] = active
            if "offsets" in self._takes:
                words["offsets"] = offsets
            elif offsets is not None:
                raise ValueError(
                    "the strategy adds offsets to what rows put out, and `forward` takes no `offsets`: choose another strategy"
                )
        kept = dict(zip((name for name, _ in self.stats), stats))
        fixed = {name: t.to(images.device, copy=True) for name, t in self._fixed.items()}
        tensors = {**dict(zip((name for name, _ in self.params), params)), **kept, **fixed}
        if self._module.training != train:
            self._module.train(train)
        with _seeded(seed, images.device):
            output = functional_call(self._module, tensors, inputs, words)
        self._settle(tensors, kept, fixed)
        if not isinstance(output, torch.Tensor) or output.shape != (len(images), self._classes):
            shape = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ValueError(f"`forward` returned {shape}; logits of shape {[len(images), self._classes]} are needed")
        return output

    def _settle(self, tensors: dict, kept: dict, fixed: dict):
        """Statistics that were replaced instead of changed in place are written back; counters that move are refused."""
        for name, view in kept.items():
            if tensors[name] is not view:
                with torch.no_grad():
                    view.copy_(tensors[name])
        for name in fixed:
            start = self._fixed[name]
            if not name.endswith("num_batches_tracked") and not torch.equal(tensors[name].cpu(), start.cpu()):
                raise ValueError(f"buffer `{name}` of {start.dtype} was changed; only floating-point buffers are kept with a run")

    def _exist(self, active):
        """What must be computed of what exists."""
        if self._allowed is None or active is None:
            return active if self._allowed is None else self._allowed
        groups = zip(self._allowed, active)
        return [[[a and b for a, b in zip(*row)] for row in zip(*group)] for group in groups]

    def _masked(self, weights: list, active) -> list:
        """Candidates that are not computed weigh nothing, and have no gradient."""
        if active is None:
            return weights
        masked = []
        for matrix, rows in zip(weights, active):
            width = matrix.shape[1]
            mask = [list(row) + [True] * (width - len(row)) for row in rows]
            mask = torch.tensor(mask, dtype=matrix.dtype, device=matrix.device)
            masked.append(matrix * mask)
        return masked


# ---- networks of runs ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Found:
    """An architecture of a space in Python."""

    space: Space
    #: `[group][row][columns]`
    kept: list
    task: Task

    def module(self, weights=None) -> nn.Module:
        """Its network alone, in training mode; with weights by name, all of which must fit."""
        module = self.space.network(choice_of(self.space, self.kept), self.task)
        if weights is None:
            return module
        where, tensors = weights
        own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        wanted = {name: list(t.shape) for name, t in own.items() if t.is_floating_point()}
        if wanted != {name: list(t.shape) for name, t in tensors.items()}:
            raise ValueError(f"{where}: these weights do not fit this network")
        with torch.no_grad():
            for name, tensor in tensors.items():
                own[name].copy_(tensor)
        return module


def found_by(what, space=None, *, sizes: dict, image: tuple | None, classes: int | None) -> Found | None:
    """The architecture of a run of a space in Python, or a genotype (a dict) of a space that is given; None of others."""
    # A genotype as text is longer than a path may be, which `os.path` takes for no file and `pathlib` for an error.
    path = pathlib.Path(what) if not isinstance(what, dict) and os.path.isfile(os.path.join(what, "run.json")) else None
    run = _read_json(path / "run.json") if path else None
    section = run["space"] if run else {}
    if section.get("name") == "python":
        genotype, of = _read_json(path / "result.json")["genotype"], section["class"]
        # How large the network of the search was is the search's alone, as in `nasfw retrain`.
        apart = ("name", "plugin", "class", "channels", "cells")
        options = {key: value for key, value in section.items() if key not in apart}
    elif section.get("name") == "standalone" and ":" in section.get("of", ""):
        genotype, of, options = json.loads(section["genotype"]), section["of"], section.get("settings", {})
        sizes = {key: sizes.get(key) or section[key] or None for key in ("channels", "cells")}
    elif isinstance(what, dict) and space is not None:
        genotype, of, options = what, None, {}
    else:
        return None
    if space is None:
        space = find(of)(**options)
    elif isinstance(space, type):
        space = space(**options)
    announce(type(space))
    section = {"name": "python", "plugin": space.name, "class": place_of(type(space)), **space.options()}
    kept = native.choice_of(json.dumps(section), json.dumps(genotype))
    inputs = _read_json(path / "manifest.json").get("inputs") if run else None
    task = Task(**inputs["task"]) if inputs else Task(3, 32, 32, 10)
    image = image or (task.channels, task.height, task.width)
    task = Task(*image, task.classes if classes is None else classes)
    return Found(_sized(space, sizes), kept, task)


def _read_json(path):
    if not path.is_file():
        raise RunError(f"{path} is not there: the run has not finished; nasfw.resume({str(path.parent)!r}) goes on with it")
    return json.loads(path.read_text())
