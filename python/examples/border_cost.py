"""What crossing the border between Python and Rust costs: microseconds a call, and a step of DARTS in both languages.

    cargo xtask python python/examples/border_cost.py
"""

import pathlib
import statistics
import sys
import tempfile
import time

import torch

import nasfw
from nasfw._native import native

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))
from strategies import DartsPy  # noqa: E402

STEPS = 2000


def microseconds(call, n=100_000):
    """Median of five of the time of a call."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(n):
            call()
        times.append((time.perf_counter() - begin) / n * 1e6)
    return statistics.median(times)


class Asks(DartsPy):
    """DARTS that first measures what a search answers."""

    def epoch_start(self, search):
        if search.epoch == 0:
            print(f"search.epoch           {microseconds(lambda: search.epoch):8.2f} µs")
            print(f"search.theta           {microseconds(lambda: search.theta):8.2f} µs")


def seconds(strategy, name, out):
    """Of a whole search on the smallest space."""
    begin = time.perf_counter()
    nasfw.run(
        strategy, space="toy-quadratic", dataset={"name": "synthetic", "images": 64}, epochs=STEPS // 4, threads=1, device="cpu",
        trainer={"batch_size": 8, "log_every": 1000, "checkpoint_every": 100_000}, name=name, out=out, progress=False,
    )
    return time.perf_counter() - begin


if __name__ == "__main__":
    tensor = torch.zeros(10)
    print(f"a tensor in and out    {microseconds(lambda: native.same(tensor)):8.2f} µs")
    with tempfile.TemporaryDirectory() as out:
        nasfw.announce(Asks)
        seconds(Asks, "asks", out)
        pairs = [(seconds("darts", f"rust{i}", out), seconds(DartsPy, f"python{i}", out)) for i in range(5)]
    rust, python = (statistics.median(t) / STEPS * 1e6 for t in zip(*pairs))
    print(f"a step of DARTS: {rust:.0f} µs in Rust, {python:.0f} µs in Python (medians of 5 searches of {STEPS} steps)")
