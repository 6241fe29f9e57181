"""What a run leaves: its folder as an object."""

from __future__ import annotations

import functools
import json
import pathlib
import tempfile

from ._errors import RunError


class Run:
    """A run folder: what was asked for, what happened, what was found."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        if not (self.path / "run.json").is_file():
            raise RunError(f"{self.path}: this is no run folder (it has no run.json)")

    def __repr__(self):
        return f"nasfw.load({str(self.path)!r})"

    def _json(self, name: str):
        file = self.path / name
        if not file.is_file():
            raise RunError(f"{file} is not there: the run has not finished; nasfw.resume({str(self.path)!r}) goes on with it")
        return json.loads(file.read_text())

    @property
    def is_finished(self) -> bool:
        """Whether it has a result."""
        return (self.path / "result.json").is_file()

    @functools.cached_property
    def config(self) -> dict:
        """Everything that decided the run."""
        return json.loads((self.path / "run.json").read_text())

    @property
    def result(self) -> dict:
        """What was found. Raises RunError before the run has finished."""
        return self._json("result.json")

    @property
    def genotype(self) -> dict:
        """The architecture that was found."""
        return self.result["genotype"]

    def records(self, kind: str | None = None) -> list:
        """Events as dicts, of one kind (`"progress"`, `"architecture"`, …) or all. A last line that is not whole is left out."""
        found = []
        with (self.path / "events.jsonl").open() as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break
                event = json.loads(line)
                if kind in (None, event["event"]):
                    found.append(event)
        return found

    def events(self, kind: str | None = None):
        """The same as a pandas frame; what is nested has dotted columns."""
        import pandas

        return pandas.json_normalize(self.records(kind))

    @functools.cached_property
    def spec(self) -> list:
        """Groups of decisions, with their rows and candidates."""
        from ._native import native

        return native.spec_of(json.dumps(self.config["space"]))

    def weights(self):
        """How the weights of all decisions moved, as a pandas frame: step, epoch, group, row, candidate, weight."""
        rows = []
        for event in self.records("architecture"):
            for group, matrix in zip(self.spec, event["marginals"]):
                for row, numbers in zip(group["rows"], matrix):
                    for candidate, weight in zip(row["candidates"], numbers):
                        rows.append((event["step"], event["epoch"], group["name"], row["name"], candidate, weight))
        import pandas

        return pandas.DataFrame(rows, columns=["step", "epoch", "group", "row", "candidate", "weight"])

    def figure(self, name: str):
        """A figure of the run (docs/reports.md), which shows itself in a notebook."""
        return _drawn("figure", self.path, name)

    def cell(self):
        """The architecture that was found as a drawing, which shows itself in a notebook."""
        return _drawn("draw", self.path)

    def _repr_svg_(self):
        return self.cell().text if self.is_finished else None


class Svg:
    """A drawing."""

    def __init__(self, text: str):
        self.text = text

    def _repr_svg_(self):
        return self.text

    def save(self, path):
        """Writes it as an SVG file."""
        pathlib.Path(path).write_text(self.text)


def _drawn(*words) -> Svg:
    """What a verb of the command line draws."""
    from ._api import command

    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "drawing.svg"
        command(*words, "-o", file)
        return Svg(file.read_text())
