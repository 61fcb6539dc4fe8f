"""A candidate's process while it runs, as its fork server tells of it, and why it was ended."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any, Literal

from .box import Box
from .values import Limits

Over = Literal["cpu", "idle", "files", "call", ""]


class Run:
    """A candidate's process that is running: its socket, and what its fork server says of it."""

    def __init__(self, box: Box, limits: Limits) -> None:
        self.box, self.limits = box, limits
        self.final: dict[str, Any] | None = None
        self.over: Over = ""
        self.channel, theirs = socket.socketpair()
        request = {
            "cpu_s": limits.cpu_s,
            "idle_s": limits.patience_s,
            "memory_mb": limits.memory_mb,
            "file_mb": limits.file_mb,
        }
        with theirs:
            box.say(request, [theirs.fileno()])

    def end(self) -> dict[str, Any]:
        """Stop it if it runs, and wait for the last that is said of it."""
        self.channel.close()
        if self.final is None:
            self.box.say({"stop": True})
        while self.final is None:
            self.hear()
        return self.final

    def hear(self) -> float | None:
        """One message of the fork server; CPU seconds where it tells those."""
        message, descriptors = self.box.hear()
        if "why" in message:
            self.final = message
            self.box.spoilt = self.box.spoilt or message["dirty"]
            if message["why"] in ("cpu", "files"):
                self.over = message["why"]
        elif "idle" in message:
            self.weigh(message, descriptors)
        return None if "idle" in message else message.get("used")

    def weigh(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """It has not used a CPU for long: has it waited for one?"""
        queued = _queued_s(descriptors[0]) if descriptors else None
        for descriptor in descriptors:
            os.close(descriptor)
        if queued is None:
            # such a host does not tell: then any progress worth the name is taken for a queue
            stuck = message["used"] < 0.05 * message["waited"]
        else:
            stuck = message["waited"] - message["used"] - queued > 0.9 * self.limits.patience_s
        if stuck:
            self.stop("idle")

    def stop(self, why: Over) -> None:
        self.over = self.over or why
        if self.final is None:
            self.box.say({"stop": True})

    def used(self) -> float | None:
        """CPU seconds so far; None when it has ended."""
        if self.final is not None:
            return None
        self.box.say({"ask": "used"})
        while self.final is None:
            if (used := self.hear()) is not None:
                return used
        return None

    def failure(self) -> tuple[Literal["fail", "timeout"], str]:
        """Status and detail of what has ended without supplying all."""
        assert self.final is not None
        limits = self.limits
        if self.over == "cpu":
            return "timeout", f"over its limit of {limits.cpu_s:g} s of CPU time"
        if self.over == "idle":
            return "timeout", f"no progress for {limits.patience_s:g} s"
        if self.over == "files":
            return "fail", f"over its limit of {limits.file_mb} MiB of files"
        code = os.waitstatus_to_exitcode(self.final["status"])
        if code == -signal.SIGXCPU:
            return "timeout", f"over its limit of {limits.cpu_s:g} s of CPU time"
        return (
            "fail",
            f"its process was killed by signal {-code}" if code < 0 else f"its process ended with status {code}",
        )


def _queued_s(pidfd: int) -> float | None:
    """Seconds that a process has waited for a CPU, of all its threads; None where the kernel does not say."""
    try:
        info = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
        pid = next(line.split()[1] for line in info.splitlines() if line.startswith("Pid:"))
        stats = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(fields[1]) for fields in stats) / 1e9 if stats else None
    except (OSError, StopIteration, ValueError, IndexError):
        return None
