"""Plugins written in Python: where their classes are found, what they say of themselves, what a run keeps of them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import pathlib
import re
import sys
import warnings

import torch

from . import _options
from ._native import native


class Plugin:
    """What strategies and other plugins have in common: a name, and options."""

    #: `"strategy"`, …
    kind = ""
    #: Name on the command line and in runs; the class's name in kebab-case unless it is said.
    name = ""
    #: Where the method was published.
    source = ""
    #: Settings of other sections: `{"trainer": {"epochs": 50}}`.
    settings: dict = {}

    def __init__(self, **options):
        known = {option.name: option for option in _options.of_class(type(self))}
        for key in options:
            if key not in known:
                raise TypeError(f"{type(self).__name__} has no option `{key}`; it has {', '.join(known) or 'none'}")
        for key, option in known.items():
            value = options.get(key, option.default)
            try:
                setattr(self, key, option.typed(value))
            except ValueError as e:
                raise ValueError(f"{key} = {value!r}: {e}") from None

    def __init_subclass__(cls, **words):
        super().__init_subclass__(**words)
        if not cls.__dict__.get("name"):
            words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__.lstrip("_"))
            cls.name = words.replace("_", "-").lower()

    def options(self) -> dict:
        """The values of all options as plain data."""
        return {o.name: _options.plain(getattr(self, o.name)) for o in _options.of_class(type(self))}

    def problems(self) -> dict:
        """What is wrong with the values of the options, by their names; empty where nothing is. For you to implement."""
        return {}


# ---- where classes are ---------------------------------------------------------------------------------------------

_MODULES: dict = {}
_LOCAL: dict = {}
_KINDS: dict = {}


def kind_of_plugin(cls):
    """Marks the base class of a kind of plugin."""
    _KINDS[cls.kind] = cls
    return cls


def place_of(cls) -> str:
    """Where a class is found again: `module:Class`, or `/path/file.py:Class` of a script."""
    module, name = cls.__module__, cls.__qualname__
    main = sys.modules.get("__main__")
    if module == "__main__":
        file = getattr(main, "__file__", None)
        spec = getattr(main, "__spec__", None)
        if spec is not None and spec.name and not spec.name.endswith("__main__"):
            module = spec.name  # python -m
        elif file and os.path.isfile(file):
            module = str(pathlib.Path(file).resolve())
            _MODULES[module] = main
    elif module in sys.modules and not _importable(module):
        file = getattr(sys.modules[module], "__file__", None)
        if file:
            module = str(pathlib.Path(file).resolve())
            _MODULES.setdefault(module, sys.modules[cls.__module__])
    place = f"{module}:{name}"
    _LOCAL[place] = cls
    return place


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def is_lasting(cls) -> bool:
    """Whether another process finds the class."""
    module, _, name = place_of(cls).rpartition(":")
    if module == "__main__" or "<locals>" in name:
        return False
    found = sys.modules.get(cls.__module__)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is cls


def find(place: str):
    """The class at `module:Class` or `file.py:Class`.

    Raises ImportError or AttributeError with what is missing.
    """
    if place in _LOCAL:
        return _LOCAL[place]
    module, _, name = place.rpartition(":")
    if module == "__main__" or "<locals>" in name:
        raise ImportError(
            f"`{place}` was defined in a notebook, a prompt or a function, where no other process finds it: "
            f"put the class into a file, and begin the run again from there"
        )
    if module.endswith(".py"):
        path = str(pathlib.Path(module).resolve())
        if path not in _MODULES:
            if not os.path.isfile(path):
                raise ImportError(f"there is no file {path}")
            spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
            loaded = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(loaded.__name__, loaded)
            _MODULES[path] = loaded
            try:
                spec.loader.exec_module(loaded)
            except BaseException:
                del _MODULES[path]
                raise
        found = _MODULES[path]
    else:
        if "" not in sys.path and os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def found_by_children():
    """Processes that are begun meanwhile look for modules where this one does."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def find_and_announce(kind: str, place: str):
    """The name of the plugin of a kind whose class is at a place; none where this is no place of a class."""
    from . import _space, _strategy  # noqa: F401  (the kinds that there are)

    base = _KINDS.get(kind)
    if base is None:
        return None
    try:
        cls = find(place)
    except (ImportError, AttributeError, FileNotFoundError) as e:
        raise ImportError(f"it can't be imported: {e}") from e
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise TypeError(f"it is no {kind}: it must be a class derived from nasfw.{base.__name__}")
    return announce(cls).name


# ---- what they say of themselves -----------------------------------------------------------------------------------


def announce(cls):
    """Adds a class to the plugins of this process, as often as one likes. Gives the class back: usable as a decorator."""
    if not (isinstance(cls, type) and issubclass(cls, Plugin) and cls.kind in _KINDS):
        raise TypeError(f"{cls!r} is no class of a plugin")
    place = place_of(cls)
    doc = (inspect.getdoc(cls) or "").strip()
    if doc == (inspect.getdoc(_KINDS[cls.kind]) or "").strip():
        doc = ""
    about = {
        "name": cls.name,
        "summary": doc.splitlines()[0] if doc else cls.__name__,
        "source": cls.source or "yours",
        "defaults": _options.defaults(cls, cls.kind),
        "example": f"nasfw run --{cls.kind} {place}",
        "package": place,
        "version": _version_of(cls),
        "file": _file_of(cls) or "",
    }
    {"strategy": native.announce_strategy, "space": native.announce_space}[cls.kind](place, about)
    return cls


def warn_if_fleeting(cls):
    """Says at the start of a run that no other process could go on with it."""
    if not is_lasting(cls):
        warnings.warn(
            f"{cls.__name__} was defined in a notebook, a prompt or a function: this process can resume the run, another one "
            f"can't. Put the class into a file to change that.",
            stacklevel=4,
        )


def _file_of(cls):
    try:
        return inspect.getsourcefile(cls)
    except (TypeError, OSError):
        return None


@functools.cache
def _distributions() -> dict:
    """Installed packages by the modules that they bring: looking through all takes a while."""
    return importlib.metadata.packages_distributions()


def _version_of(cls) -> str:
    """The version of the installed package, or a digest of the source file: a run keeps it."""
    top = cls.__module__.split(".")[0]
    for name in _distributions().get(top, []):
        return importlib.metadata.version(name)
    file = _file_of(cls)
    try:
        text = pathlib.Path(file).read_bytes() if file else inspect.getsource(cls).encode()
    except (OSError, TypeError):
        return "unknown"
    return "sha256:" + hashlib.sha256(text).hexdigest()[:16]


# ---- what the border asks ------------------------------------------------------------------------------------------


def typed(place: str, options: dict):
    """Options as the class has them, as plain data, and what is wrong with them as (name, what)."""
    known = {o.name: o for o in _options.of_class(find(place))}
    values, problems = {}, []
    for key in options:
        if key not in known:
            import difflib

            near = difflib.get_close_matches(key, known, 1)
            problems.append((key, f"there is no such option{f'; did you mean `{near[0]}`?' if near else ''}"))
    for key, option in known.items():
        try:
            values[key] = _options.plain(option.typed(options.get(key, option.default)))
        except ValueError as e:
            problems.append((key, f"{options.get(key)!r}: {e}"))
    return values, problems


def make(place: str, options: dict):
    """A plugin with options."""
    return find(place)(**options)


def problems(place: str, options: dict):
    """What the plugin itself says is wrong with its options."""
    plugin = make(place, options)
    found = [(str(k), str(v)) for k, v in dict(plugin.problems() or {}).items()]
    return found


def seed(number: int):
    """Puts torch's own generators to a start: what a step draws of them is the same after a resume."""
    torch.manual_seed(number)


def parted(state: dict):
    """A state as plain values and tensors."""
    if not isinstance(state, dict):
        raise TypeError(f"`state()` must return a dict, not {type(state).__name__}")
    tensors = {k: v.detach() for k, v in state.items() if isinstance(v, torch.Tensor)}
    return {k: v for k, v in state.items() if k not in tensors}, tensors


def joined(values: dict, tensors: dict):
    """The inverse of `parted`."""
    return {**(values or {}), **tensors}
