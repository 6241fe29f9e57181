"""Checks for strategies and spaces of your own, for pytest."""

from ._ambient import ambient
from ._native import native
from ._plugins import announce
from ._start import started


def findings(plugin, *, image: tuple = (3, 16, 16), classes: int = 10) -> list:
    """What the conformance suite finds of a class: dicts with invariant, about, broken, not_applicable.

    plugin: a class of `nasfw.Strategy` or `nasfw.Space`.
    image, classes: the images (channels, rows, columns) and classes that a space is tried on.
    """
    started()
    announce(plugin)
    with ambient():
        found = native.conformance(plugin.kind, plugin.name, (*image, classes))
    keys = ("invariant", "about", "broken", "not_applicable")
    return [dict(zip(keys, finding)) for finding in found]


def conforms(plugin, *, image: tuple = (3, 16, 16), classes: int = 10) -> None:
    """Holds a class to everything that its kind is held to. Of a strategy: exact resume, gradients that are what they claim to
    be, data of the right halves, and more. Of a space: genotypes that lead back to their choices, a supernet that is a
    function of its weights, images and architecture, masks that mask. Raises AssertionError with what is broken."""
    broken = [f for f in findings(plugin, image=image, classes=classes) if f["broken"]]
    if broken:
        lines = [f"{f['invariant']} ({f['about']}): {f['broken']}" for f in broken]
        raise AssertionError(f"{plugin.__name__} breaks {len(lines)} invariants:\n" + "\n".join(lines))
