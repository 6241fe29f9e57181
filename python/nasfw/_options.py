"""Options of plugins: annotated attributes of a class, with types, defaults and the comments above them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import json
import textwrap
import tokenize
import typing

REQUIRED = dataclasses.MISSING


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimizer of the architecture's parameters; `nasfw.Adam` and `nasfw.Sgd` make it."""

    lr: float
    optimizer: str = "adam"
    lr_min: float = 0.0
    schedule: str = "constant"
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 0.0

    def __post_init__(self):
        for name, known in (("optimizer", ("adam", "sgd", "rmsprop")), ("schedule", ("constant", "linear", "cosine"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r}: it must be one of {', '.join(known)}")

    def settings(self) -> dict:
        """As the framework has it."""
        return {**dataclasses.asdict(self), "betas": list(self.betas)}

    @classmethod
    def of(cls, settings: dict) -> Optimizer:
        """The inverse of `settings`."""
        return cls(**{**settings, "betas": tuple(settings.get("betas", (0.9, 0.999)))})


_OPTIMIZER_COMMENTS = {
    "lr": "Learning rate at the start.",
    "optimizer": 'Rule: "adam", "sgd" or "rmsprop".',
    "lr_min": "Learning rate at the end of a decaying schedule.",
    "schedule": 'How the rate moves: "constant", "linear" or "cosine".',
    "momentum": "SGD and RMSProp: momentum.",
    "nesterov": "SGD: Nesterov's form of momentum.",
    "betas": "Adam: decay rates of the moments.",
    "eps": "Added where Adam and RMSProp divide.",
    "weight_decay": "L2 decay.",
    "clip": "Largest norm of the gradient; 0 does not clip.",
}


def Adam(lr: float, betas: tuple = (0.9, 0.999), weight_decay: float = 0.0, **more) -> Optimizer:
    """Adam with L2 decay (not AdamW)."""
    return Optimizer(lr, "adam", betas=tuple(betas), weight_decay=weight_decay, **more)


def Sgd(lr: float, momentum: float = 0.0, weight_decay: float = 0.0, **more) -> Optimizer:
    """Stochastic gradient descent."""
    return Optimizer(lr, "sgd", momentum=momentum, weight_decay=weight_decay, **more)


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a class."""

    name: str
    type: object
    default: object
    comment: str

    def typed(self, value):
        """The value as the option's type.

        Raises ValueError with what it must be.
        """
        return _typed(self.type, value)


def _typed(kind, value):
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Optimizer:
        if isinstance(value, Optimizer):
            return value
        if not isinstance(value, dict):
            raise ValueError("it must be the settings of an optimizer")
        known = {f.name for f in dataclasses.fields(Optimizer)}
        unknown = sorted(set(value) - known)
        if unknown:
            raise ValueError(f"an optimizer has no option `{unknown[0]}`")
        return Optimizer.of(value)
    if origin is typing.Literal:
        if value not in inner:
            raise ValueError(f"it must be one of {', '.join(map(repr, inner))}")
        return value
    if origin in (list, tuple) or kind in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise ValueError("it must be a list")
        of = [t for t in inner if t is not Ellipsis]
        if origin is tuple and inner and Ellipsis not in inner:
            if len(value) != len(of):
                raise ValueError(f"it must have {len(of)} items")
            items = [_typed(t, v) for t, v in zip(of, value)]
        else:
            items = [_typed(of[0], v) if of else v for v in value]
        return tuple(items) if (origin or kind) is tuple else items
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError("it must be true or false")
        return value
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or int(value) != value:
            raise ValueError("it must be a whole number")
        return int(value)
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError("it must be a number")
        return float(value)
    if kind is str:
        if not isinstance(value, str):
            raise ValueError("it must be a text")
        return value
    raise TypeError(
        f"options are int, float, bool, str, lists and tuples of them, Literal[…] or nasfw.Optimizer, not {kind}"
    )


def plain(value):
    """An option's value as plain data."""
    if isinstance(value, Optimizer):
        return value.settings()
    return list(value) if isinstance(value, tuple) else value


def of_class(cls) -> list[Option]:
    """The options of a class: its annotated attributes that do not begin with `_`, those of base classes first."""
    options = {}
    for base in reversed(cls.__mro__):
        own = base.__dict__.get("__annotations__", {}) if "__annotations__" in base.__dict__ else _annotations(base)
        if not own or base.__module__.split(".")[0] == "nasfw":
            continue
        hints = typing.get_type_hints(base)
        comments = _comments(base)
        for name in own:
            if name.startswith("_") or typing.get_origin(hints[name]) is typing.ClassVar:
                continue
            default = base.__dict__.get(name, REQUIRED)
            if default is REQUIRED:
                raise TypeError(f"option `{name}` of {base.__name__} needs a default value")
            kind = Optimizer if isinstance(default, Optimizer) else hints[name]
            try:
                default = _typed(kind, default)
            except ValueError as e:
                raise TypeError(f"option `{name}` of {base.__name__}: its default is {default!r}, but {e}") from None
            options[name] = Option(name, kind, default, comments.get(name, ""))
    return list(options.values())


def _annotations(base):
    # From Python 3.14 on they are made when they are asked for.
    return inspect.get_annotations(base) if isinstance(base, type) and base is not object else {}


def _comments(cls) -> dict:
    """The comment lines above each attribute of a class, as far as its source is at hand."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
        body = ast.parse(source).body[0].body
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (OSError, TypeError, SyntaxError, IndexError, tokenize.TokenError):
        return {}
    lines = {t.start[0]: t.string.lstrip("#:").strip() for t in tokens if t.type == tokenize.COMMENT and not t.line[: t.start[1]].strip()}
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above, line = [], node.lineno - 1
            while line in lines:
                above.insert(0, lines[line])
                line -= 1
            found[node.target.id] = " ".join(above)
    return found


def toml(value) -> str:
    """A plain value as TOML."""
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        text = repr(value)
        return text if any(c in text for c in ".en") else text + ".0"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


def defaults(cls, kind: str) -> str:
    """The options of a class with their defaults as commented TOML."""
    options = of_class(cls)
    lines = [f"[{kind}]"]
    for option in (o for o in options if not isinstance(o.default, Optimizer)):
        lines += _commented(option.comment, option.name, plain(option.default))
    for option in (o for o in options if isinstance(o.default, Optimizer)):
        lines += [f"# {line}" for line in ([option.comment] if option.comment else [])]
        lines.append(f"[{kind}.{option.name}]")
        for name, value in option.default.settings().items():
            lines += _commented(_OPTIMIZER_COMMENTS[name], name, value)
    for section, values in getattr(cls, "settings", {}).items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {toml(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _commented(comment, name, value):
    above = [f"# {comment}"] if comment else []
    return [*above, f"{name} = {toml(value)}"]
