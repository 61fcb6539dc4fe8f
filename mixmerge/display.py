"""What a run shows on standard error: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from .plan import Plan
from .types import Record, Step


def seconds(value: float) -> str:
    """`41 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(value: float) -> str:
    """Bytes in decimal units: `517 MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


class Clock:
    """Guesses what is left: the mean time of finished steps of a kind, and the progress of those that run."""

    def __init__(self) -> None:
        self.began: dict[str, tuple[Step, float]] = {}
        self.took: dict[str, list[float]] = defaultdict(list)
        self.left: dict[str, Step] = {}
        self.slots_seen = 1
        self.start = time.monotonic()

    def planned(self, missing: list[Step]) -> None:
        self.left = {step.id: step for step in missing}

    def started(self, step: Step) -> None:
        self.began[step.id] = (step, time.monotonic())
        self.slots_seen = max(self.slots_seen, len(self.began))

    def finished(self, step: Step) -> float:
        self.left.pop(step.id, None)
        _, began = self.began.pop(step.id, (step, time.monotonic()))
        took = time.monotonic() - began
        self.took[step.kind].append(took)
        return took

    def estimate(self, progress: Mapping[str, Mapping[str, Any]]) -> tuple[float, bool]:
        """Seconds that the steps of a kind that was seen still take, and whether those are all that are left."""
        total, whole = 0.0, True
        for step in self.left.values():
            mean = sum(self.took[step.kind]) / len(self.took[step.kind]) if self.took[step.kind] else None
            began = self.began.get(step.id)
            share = _share(progress.get(step.id, {}))
            if began and share > 0.02:
                spent = time.monotonic() - began[1]
                total += spent / share - spent
            elif mean is not None:
                total += max(0.0, mean - (time.monotonic() - began[1])) if began else mean
            elif step.kind not in ("advise", "report", "export", "diagnose", "mixture", "contamination", "data"):
                whole = False
        return total / self.slots_seen, whole

    def left_over(self, progress: Mapping[str, Mapping[str, Any]], later: bool) -> str:
        """`about 5 min 00 s left`; `at least …` while more may follow, or some of it was never seen; "" for no idea."""
        total, whole = self.estimate(progress)
        if not whole and total < 1:
            return ""
        return f"{'about' if whole and not later else 'at least'} {seconds(total)} left"


def _share(progress: Mapping[str, Any]) -> float:
    total = float(progress.get("total") or 0)
    return float(progress.get("done", 0)) / total if total else 0.0


class PlainDisplay:
    """One line when a step starts or ends, and once a minute how far the running ones are."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.total = self.done = 0
        self.later = False
        self.said = time.monotonic()

    def planned(self, plan: Plan, missing: list[Step]) -> None:
        self.clock.planned(missing)
        before, self.later = len(plan.runnable) - len(missing) - self.done, bool(plan.later)
        more = "more " if self.total else ""
        self.total += len(missing)
        done = f" ({before} were done before)" if before else ""
        later = ", and then what the scores on choose_on ask for" if plan.later else ""
        self.say(f"{plan.recipe.name}: {len(missing)} {more}steps to do{done}{later}")

    def started(self, step: Step) -> None:
        self.clock.started(step)
        self.say(f"start  {step.name}")

    def finished(self, step: Step, record: Record | None, error: str) -> None:
        took = self.clock.finished(step)
        self.done += 1
        state = "done  " if record else "FAILED"
        told = error.partition("\n")[0]  # the whole of it ends the run
        if record and record.outcome.get("acted_on"):
            rows, of = record.outcome["acted_on"], record.outcome["rows"]
            act = ", and are left out" if step.content["policy"] == "drop" else ""
            told = f"{rows} of {of} rows share something with an evaluation set{act}"
        self.say(f"{state} {step.name} ({seconds(took)}; {self.counted})" + (f": {told}" if told else ""))

    @property
    def counted(self) -> str:
        """`3 of 32`, or `3 of 32 or more` while scores may ask for more."""
        return f"{self.done} of {self.total}{' or more' if self.later else ''}"

    def tick(self, progress: Mapping[str, Mapping[str, Any]]) -> None:
        if time.monotonic() - self.said > 60:
            running = [self.clock.began[step_id][0].name + _note(found) for step_id, found in progress.items()]
            self.say("...    " + "; ".join(filter(None, [*running, self.clock.left_over(progress, self.later)])))

    def close(self) -> None:
        pass

    def say(self, text: str) -> None:
        self.said = time.monotonic()
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class LiveDisplay(PlainDisplay):
    """A panel that redraws itself: what runs, how far, what is left; finished steps scroll above it."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live

        self.live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)
        self.live.start()

    def started(self, step: Step) -> None:
        self.clock.started(step)  # the panel shows what runs

    def tick(self, progress: Mapping[str, Mapping[str, Any]]) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        for step_id, found in progress.items():
            step, began = self.clock.began[step_id]
            share = _share(found)
            bar = ProgressBar(total=1.0, completed=share, width=24, pulse=share == 0)
            took = seconds(time.monotonic() - began)
            table.add_row(Text(step.name, style="bold"), bar, Text(took), Text(str(found.get("note", "")), style="dim"))
        ending = self.clock.left_over(progress, self.later) or "estimating what is left"
        spent = seconds(time.monotonic() - self.clock.start)
        self.live.update(Group(table, Text(f"{self.counted} steps, {spent} so far, {ending}")))

    def close(self) -> None:
        self.live.stop()

    def say(self, text: str) -> None:
        from rich.text import Text

        self.live.console.print(Text(f"{time.strftime('%H:%M:%S')} {text}"))


def _note(progress: Mapping[str, Any]) -> str:
    share = _share(progress)
    note = f", {progress['note']}" if progress.get("note") else ""
    return f" ({share:.0%}{note})" if share else ""


def make() -> PlainDisplay:
    """Live on a terminal that can, plain elsewhere (`NO_COLOR` turns colours off in either, `TERM=dumb` the panel)."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return LiveDisplay()
    return PlainDisplay()
