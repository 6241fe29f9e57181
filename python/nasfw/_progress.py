"""Progress where no terminal is: in notebooks."""

import sys
import time


def in_notebook() -> bool:
    """Whether cells are shown by a notebook's page."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def on_terminal() -> bool:
    """Whether standard error is a terminal."""
    try:
        return sys.__stderr__.isatty()
    except (AttributeError, ValueError):
        return False


class Line:
    """One line of a notebook's output that is written again and again."""

    def __init__(self):
        from IPython.display import display

        self.shown = display({"text/plain": "nasfw: beginning"}, raw=True, display_id=True)
        self.last = 0.0
        self.text = {}

    def __call__(self, event):
        kind = event.get("event")
        if kind == "progress":
            meters = ", ".join(f"{k} loss {m['loss']:.3f} acc {m['accuracy']:.3f}" for k, m in event["meters"].items())
            done = event.get("done")
            self.text["progress"] = f"{done:.0%} step {event['step']}: {meters}" if done is not None else meters
        elif kind == "architecture":
            regret = event.get("regret") or {}
            self.text["found"] = "".join(f", regret {k} {v:.4f}" for k, v in list(regret.items())[:1])
        if kind == "finished" or time.monotonic() - self.last > 0.5:
            self.last = time.monotonic()
            end = f" ({event['reason']})" if kind == "finished" else ""
            self.shown.update({"text/plain": "nasfw: " + "".join(self.text.values()) + end}, raw=True)
