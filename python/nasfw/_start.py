"""What a process does once, before anything else."""

import sys
from importlib.metadata import entry_points

from ._native import native

_started = False

#: Groups of entry points by which installed packages announce plugins.
GROUPS = ("nasfw.strategies", "nasfw.spaces")


def started():
    """Says how this program is started again, and announces the plugins of installed packages."""
    global _started
    if _started:
        return
    _started = True
    native.started_as("nasfw", [sys.executable, "-m", "nasfw"])
    points = [point for group in GROUPS for point in entry_points(group=group)]
    if points:
        # Here plugins are imported, and with them torch.
        from ._plugins import announce

        for point in points:
            announce(point.load())
