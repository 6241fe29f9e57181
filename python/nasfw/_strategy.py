"""Strategies written in Python."""

from __future__ import annotations

import dataclasses

from ._native import native
from ._plugins import Plugin, kind_of_plugin

Search, Spec, Arch, Batch, Rng = native.Search, native.Spec, native.Arch, native.Batch, native.Rng


@kind_of_plugin
class Strategy(Plugin):
    """A way to search. Write a class with `step`; everything else has a default.

    Options are annotated attributes with defaults; a comment above one explains it:

        class Annealed(nasfw.Strategy):
            \"\"\"Softmax with a falling temperature.\"\"\"

            # Temperature at the start.
            hot: float = 5.0
            # Optimizer of the logits.
            arch: nasfw.Optimizer = nasfw.Adam(lr=3e-4)
    """

    kind = "strategy"
    #: Images to train on: `"halves"` (train and val), `"full"`, or a number of steps an epoch without images.
    data = "halves"
    #: Optimizer of φ, needed with a distribution; none where there is none.
    arch = None
    #: Whether `Rollback` may be asked for, so that a checkpoint of every epoch is kept.
    needs_history = False
    #: Whether a table of results is needed, so that a run without one is refused at once.
    needs_benchmark = False
    #: Names of attributes that change during a search: what `state` keeps.
    keeps: tuple = ()
    #: What there is to decide; set before `distribution` is called.
    spec: Spec
    #: Planned epochs; set before `distribution` is called.
    epochs: int

    def step(self, search: Search) -> None:
        """One step of the algorithm."""
        raise NotImplementedError(f"{type(self).__name__} must implement `step`")

    def distribution(self):
        """The learned distribution: `Softmax()`, `GumbelSoftmax()`, `Dirichlet()`, a `Distribution` of your own, or none."""
        return None

    def supernet_options(self):
        """What the supernet must offer, by name (docs/strategies.md); none asks nothing special."""
        return None

    def claims(self) -> dict:
        """What the conformance suite is to hold the step to. `arch_gradient`: "direct" (of the loss, the default),
        "unrolled", "score", or in words why it is something else; `weight_gradient`: "mean" (the default), or why not;
        `adversarial`; `schedules`: `{logged name: (start, end)}`."""
        return {}

    def epoch_start(self, search: Search) -> None:
        """Called before the first step of an epoch."""

    def epoch_end(self, search: Search):
        """Called after the last step of an epoch. Returns nothing, a text (the search ends, and why), or `Set`,
        `Rollback` or `Rebuild`."""

    def derive(self, search: Search):
        """Kept candidates as `[group][row][index]`. None: the distribution's mean through the space's rule."""
        return None

    def metrics(self) -> dict:
        """Figures of your own for reports, by name; they must follow from `state`."""
        return {}

    def pictures(self, search: Search) -> dict:
        """Matrices (lists of rows) that show the inside of the strategy, by name."""
        return {}

    def state(self) -> dict:
        """What a checkpoint must keep: plain values and tensors by name. By default the attributes named by `keeps`."""
        return {name: getattr(self, name) for name in self.keeps}

    def restore(self, state: dict) -> None:
        """Puts back what `state` gave."""
        for name, value in state.items():
            setattr(self, name, value)


# ---- what `epoch_end` returns: plain data --------------------------------------------------------------------------


def Set(*, batch_size: int | None = None, weight_decay: float | None = None) -> dict:
    """Change training settings from the next epoch on."""
    return {"control": "set", "batch_size": batch_size, "weight_decay": weight_decay}


def Rollback(epoch: int, *, batch_size: int | None = None, weight_decay: float | None = None) -> dict:
    """Go back to the end of an earlier epoch, then change settings. Needs `needs_history = True`."""
    return {"control": "rollback", "epoch": epoch, "batch_size": batch_size, "weight_decay": weight_decay}


def Rebuild(*, carry_weights: bool) -> dict:
    """Build a new supernet and distribution, as `supernet_options` and `distribution` now say."""
    return {"control": "rebuild", "carry_weights": carry_weights}


# ---- distributions -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Softmax:
    """Independent softmax of free logits (DARTS)."""

    init_std: float = 1e-3

    @property
    def framework(self):
        """As the framework has it."""
        return {"kind": "softmax", "init_std": float(self.init_std)}


@dataclasses.dataclass(frozen=True)
class GumbelSoftmax:
    """Softmax of free logits, relaxed by Gumbel noise at a temperature; `hard`: the straight-through estimator."""

    init_mean: float = 0.0
    init_std: float = 1e-3
    temperature: float = 1.0
    hard: bool = False

    @property
    def framework(self):
        """As the framework has it."""
        return {"kind": "gumbel-softmax", **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class Dirichlet:
    """Rows drawn from Dirichlet distributions (DrNAS)."""

    init_std: float = 1e-3

    @property
    def framework(self):
        """As the framework has it."""
        return {"kind": "dirichlet", "init_std": float(self.init_std)}


class Distribution:
    """A distribution over architectures of your own: functions of one flat vector φ, differentiable by torch.

    What is not implemented is something that it does not have.
    """

    def layout(self) -> list:
        """Parts of φ: (name, shape, standard deviation at the start)."""
        raise TypeError(f"{type(self).__name__} must implement `layout`")

    def mean(self, phi) -> list:
        """The distribution without its noise: one `[rows, width]` matrix per group, padding zero."""
        raise TypeError(f"{type(self).__name__} must implement `mean`")

    def sample(self, phi, rng: Rng):
        """A relaxed sample, differentiable in φ: matrices, or an `Arch`. All randomness comes from `rng`."""
        raise NotImplementedError

    def draw(self, phi, rng: Rng) -> list:
        """A discrete draw as `[group][row][index]`. All randomness comes from `rng`."""
        raise NotImplementedError

    def log_prob(self, phi, choice: list):
        """The log-probability of a discrete draw, a scalar differentiable in φ."""
        raise NotImplementedError
