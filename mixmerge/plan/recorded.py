"""The plan of results that others recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import recorded
from .builder import Builder
from .values import Plan, plain


class RecordedBuilder(Builder):
    """The plan of recorded results: read the files, ask the advisors about each experiment, report."""

    def plan(self) -> Plan:
        entry = self.recipe.recorded
        assert entry is not None
        paths = {table.file: recorded.find(table.file, self.recipe.path.parent) for table in entry.tables}
        content = {"reader": recorded.VERSION, "tables": plain(recorded.to_json(entry.tables))}
        self.recorded = self.step(
            "record",
            "read recorded results",
            content={**content, "paths": {file: str(path.absolute()) for file, path in paths.items()}},
            matters=content,
            pins={file: recorded.pin(path) for file, path in paths.items()},
        )
        lines = [line for table in entry.tables for line in recorded.read_lines(table, paths[table.file])]
        self.conclude_each(tuple(dict.fromkeys((line.entry, line.experiment) for line in lines)))
        return Plan(self.recipe, self.steps, (), (), {}, {}, self.manifest())

    def conclude_each(self, experiments: Sequence[tuple[str, str]]) -> None:
        """Advice on each experiment, by its place among them, and one report of them all."""
        given = {"seed": self.recipe.seed, "inputs": {"records": (self.recorded,)}}
        manifest = self.manifest()
        advice = tuple(
            self.step(
                "advise",
                f"advise: {use.name} on {name} ({entry})",
                use,
                content={"manifest": manifest, "experiment": place},
                **given,
            )
            for place, (entry, name) in enumerate(experiments)
            for use in self.recipe.advise
        )
        given["inputs"] = {"records": (self.recorded,), "advice": advice}
        for use in self.recipe.report:
            self.step("report", f"report: {use.name}", use, content={"manifest": manifest}, **given)

    def manifest(self) -> dict[str, Any]:
        entry = self.recipe.recorded
        assert entry is not None
        tasks = {"choose_on": list(entry.choose_on), "report_on": list(entry.report_on)}
        return {**super().manifest(), **tasks, "recorded": self.recorded}
