"""Networks as PyTorch modules, made of the files that nasfw writes for them.

A file's text becomes a class (`network_class`). Its objects are plain modules of torch's own layers. They can be copied and
pickled whole, since what is pickled carries the text; who unpickles them needs this package.
"""

from __future__ import annotations

import hashlib
import linecache
import os
import sys
import types
from collections.abc import Callable, Mapping
from typing import Union

import torch
from torch import nn

__all__ = ["load_weights", "make", "network_class"]

#: Trained weights: a safetensors file, a run's folder, or tensors by name.
Weights = Union[str, "os.PathLike[str]", Mapping[str, torch.Tensor]]

_SHOWN = 3
_modules: dict[str, types.ModuleType] = {}


def network_class(source: str) -> type[nn.Module]:
    """The class `Network` of a file's text. The same text gives the same class.

    Raises:
        ValueError: A text that is no such file.
    """
    return _class(source, "Network")


def make(
    source: str,
    *,
    weights: Weights | None = None,
    drop_path_rate: float = 0.0,
    of_run: Callable[[str], Mapping[str, torch.Tensor]] | None = None,
) -> nn.Module:
    """A network of a file's text, in training mode.

    Args:
        source: The text of a file that `nasfw export --pytorch` writes.
        weights: Trained weights; without them fresh ones are drawn by torch's generator.
        drop_path_rate: The share of paths that training drops, at least 0 and below 1.
        of_run: What gives the weights of a run's folder by name.

    Raises:
        ValueError: A text that is no such file, a rate out of range, weights of another network.
        TypeError: Weights that are none of the three.
        FileNotFoundError: A file that there is not.
    """
    network = network_class(source)(drop_path_rate=drop_path_rate)
    if weights is not None:
        load_weights(network, weights, of_run)
    return network


def load_weights(
    network: nn.Module,
    weights: Weights,
    of_run: Callable[[str], Mapping[str, torch.Tensor]] | None = None,
) -> None:
    """Puts trained weights into a network. All of them must fit, else nothing is changed.

    Args:
        network: The network.
        weights: A safetensors file, a run's folder, or tensors by name.
        of_run: What gives the weights of a run's folder by name.

    Raises:
        ValueError: Weights of another network, and files that hold none.
        TypeError: Weights that are none of the three.
        FileNotFoundError: A file that there is not.
    """
    where, tensors = tensors_of(weights, of_run)
    problem = _differs(network, tensors)
    if problem is not None:
        raise ValueError(f"{where}: these weights do not fit this network: {problem}")
    # torch adds the counts of batches that are missing only where the mapping says nothing of versions.
    network.load_state_dict(dict(tensors))


def tensors_of(
    weights: Weights, of_run: Callable[[str], Mapping[str, torch.Tensor]] | None = None
) -> tuple[str, Mapping[str, torch.Tensor]]:
    """Where weights are from, in words, and the tensors by name.

    Raises:
        TypeError: What is neither a file, a folder nor tensors by name.
        ValueError: Files that hold none.
        FileNotFoundError: A file that there is not.
    """
    if isinstance(weights, Mapping):
        return "the given tensors", weights
    if isinstance(weights, (str, os.PathLike)):
        return os.fspath(weights), _read(os.fspath(weights), of_run)
    raise TypeError(f"weights are a {type(weights).__name__}; give a safetensors file, a run's folder or a state dict")


def _read(path: str, of_run: Callable[[str], Mapping[str, torch.Tensor]] | None) -> Mapping[str, torch.Tensor]:
    """Weights by name from a file or a folder."""
    if os.path.isdir(path):
        if of_run is None:
            raise ValueError(
                f"{path} is a folder; write its weights with `nasfw export {path} --safetensors FILE` and give that file"
            )
        return of_run(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"weights: there is no file or run {path}")
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as e:
        raise ImportError("weights in a file need the package safetensors: `pip install safetensors`") from e
    try:
        return load_file(path)
    except SafetensorError as e:
        raise ValueError(
            f"{path} is no safetensors file ({e}); `nasfw export RUN --safetensors FILE` writes one, and what torch.save"
            " wrote is read by torch.load, whose state dict can be given"
        ) from e


def _differs(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Why weights are not those of a network; None where they are."""
    ours = network.state_dict()
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            return f"`{name}` is a {type(tensor).__name__} and no tensor"
    missing = [name for name in ours if name not in tensors and not name.endswith("num_batches_tracked")]
    unknown = [name for name in tensors if name not in ours]
    other = [
        f"{name} ({_shape(tensors[name])} in the place of {_shape(tensor)})"
        for name, tensor in ours.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    problems = [
        f"{what} {_some(names)}"
        for what, names in [("missing:", missing), ("not known:", unknown), ("of another shape:", other)]
        if names
    ]
    if not problems:
        return None
    if unknown and all(name.startswith("module.") for name in tensors):
        problems.append("all names begin with `module.`: give `network.module.state_dict()` of the wrapped network")
    return "; ".join(problems)


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape) or "a number"


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _module(source: str) -> types.ModuleType:
    """The module that a text makes."""
    if not isinstance(source, str):
        raise TypeError(f"the text of a network is a {type(source).__name__}")
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    name = f"{__name__}.of_{digest}"
    if name in _modules:
        return _modules[name]
    module = types.ModuleType(name, "A network that nasfw wrote down.")
    module.__file__ = file = f"<network {digest}>"
    try:
        exec(compile(source, file, "exec"), module.__dict__)  # noqa: S102: nasfw's own text
    except Exception as e:
        raise ValueError(f"this is no file that `nasfw export --pytorch` wrote: {type(e).__name__}: {e}") from e
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == name]
    if not any(cls.__name__ == "Network" and issubclass(cls, nn.Module) for cls in own):
        raise ValueError("this is no file that `nasfw export --pytorch` wrote: it has no class Network")
    for cls in own:
        cls.__reduce_ex__ = _reduce(source)
    # For tracebacks, torch.compile and everybody else who reads code.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    sys.modules[name] = _modules[name] = module
    return module


def _class(source: str, name: str) -> type[nn.Module]:
    return getattr(_module(source), name)


def _reduce(source: str) -> Callable[..., object]:
    """How objects of a text's classes are pickled and copied: by the text and what they hold."""

    def reduce(self: nn.Module, _protocol: object) -> tuple[object, ...]:
        state = self.__getstate__() if hasattr(self, "__getstate__") else self.__dict__
        return _blank, (source, type(self).__name__), state

    return reduce


def _blank(source: str, name: str) -> nn.Module:
    """An object of a text's class that is about to be given what it holds."""
    cls = _class(source, name)
    return cls.__new__(cls)
