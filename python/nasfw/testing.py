"""Checks for strategies of your own, for pytest."""

from ._ambient import ambient
from ._native import native
from ._plugins import announce
from ._start import started


def findings(strategy) -> list:
    """What the conformance suite finds of a strategy's class: dicts with invariant, about, broken, not_applicable."""
    started()
    announce(strategy)
    with ambient():
        found = native.conformance(strategy.name)
    keys = ("invariant", "about", "broken", "not_applicable")
    return [dict(zip(keys, finding)) for finding in found]


def conforms(strategy) -> None:
    """Holds a strategy's class to everything that strategies are held to: exact resume, gradients that are what they claim
    to be, data of the right halves, and more. Raises AssertionError with what is broken."""
    broken = [f for f in findings(strategy) if f["broken"]]
    if broken:
        lines = [f"{f['invariant']} ({f['about']}): {f['broken']}" for f in broken]
        raise AssertionError(f"{strategy.__name__} breaks {len(lines)} invariants:\n" + "\n".join(lines))
