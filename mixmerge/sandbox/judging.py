"""One candidate at a time: starts it in a box, lets it supply values, and decides.

`compare` holds the expected outputs and compares bytes as they arrive; `split` lets a checker run the tests. In both,
time is the CPU time of the candidate's process, asked of the fork server; a wall clock only ends what makes no
progress, and waiting for a CPU is not counted.
"""

from __future__ import annotations

import select
import socket
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Any

from . import wire
from .box import Box
from .running import Run
from .values import SHORT, Cases, Digest, Job, Limits, Opaque, Outcome, Program, Raised, Tests, Verdict, packed_inputs

_TICK_S = 0.25
_CHECKER_S = 5.0  # what a checker gets to find out that its candidate has ended
_LOOSE = 256 << 10  # bytes: a value of another form may be this long, or eight times the expected one
_AHEAD = 1 << 20  # bytes that an honest candidate may be ahead: what fits into a socket, and some
_LONGEST = 1 << 20  # bytes of marshalled data that a Program may return as they are


# -- outputs as data -----------------------------------------------------------------------------------------------


class Batch:
    """A candidate that is asked for many calls: loads it, sends the inputs, and hands out what arrives.

    It may say what it likes, as fast as it likes, and read nothing: so nothing here waits for it to read, and no more
    than `most` bytes of it are kept.
    """

    def __init__(self, run: Run, most: int, entry_point: str, limits_s: tuple[float, ...], **form: Any) -> None:
        self.run, self.most, self.limits_s = run, most, limits_s
        self.settings = {"entry": entry_point, "limits": limits_s, **form}
        self.frames = wire.Frames(most)
        self.unsent = bytearray()
        self.waiting: deque[bytes] = deque()
        self.agreed = 0  # calls that are answered: which one's limit counts now
        self.mark: tuple[int, float] | None = None
        self.poll = select.poll()
        self.poll.register(run.channel, select.POLLIN)
        self.poll.register(run.box.control, select.POLLIN)

    def load(self, code: str) -> str:
        """Load the code; what is wrong with it, or "". Whether it defines the entry point is its own word."""
        self.say(wire.dumps(["load", code]))
        body = self.frame()
        if body is None:
            return "its process ended while the code was loaded"
        reply = wire.loads(body, lambda *_: None)
        if type(reply) is not list or reply[:1] != ["r"]:
            return _told(reply)
        names = reply[1] if len(reply) == 2 and type(reply[1]) is list else []
        return "" if self.settings["entry"] in names else f"defines no {self.settings['entry']}"

    def begin(self, inputs: bytes) -> None:
        """Ask for the calls; see `values.packed_inputs`."""
        self.say(wire.dumps(wire.encode(["batch", self.settings], str)))
        self.say(inputs)

    def say(self, body: bytes) -> None:
        self.unsent += wire.frame(body)

    def send(self) -> None:
        """As much of what is to be said as it takes now."""
        try:
            del self.unsent[: self.run.channel.send(self.unsent, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            pass
        except OSError:  # it has ended: reading will tell
            self.unsent.clear()

    def chunk(self) -> bytes:
        """Bytes that have arrived, b"" at the end; meanwhile, limits are kept."""
        channel, control = self.run.channel.fileno(), self.run.box.control.fileno()
        while True:
            self.poll.modify(channel, select.POLLIN | (select.POLLOUT if self.unsent else 0))
            events = dict(self.poll.poll(_TICK_S * 1000))
            if control in events:
                self.run.hear()
                if self.run.final is not None:
                    self.poll.unregister(control)
            if self.unsent and events.get(channel, 0) & select.POLLOUT:
                self.send()
            if events.get(channel, 0) & ~select.POLLOUT:
                try:
                    return self.run.channel.recv(1 << 18)
                except OSError:
                    return b""
            if not events:
                self.keep_time()

    def keep_time(self) -> None:
        """A candidate may catch what ends a call that takes too long; it does not survive this.

        Answers travel together, so which call it is at cannot be told from outside: the longest that is left counts.
        """
        used, left = self.run.used(), self.limits_s[self.agreed :]
        if used is None or not left:
            return
        if self.mark is None or self.mark[0] != self.agreed:
            self.mark = (self.agreed, used)
        elif used - self.mark[1] > 1.25 * max(left) + 0.5:
            self.run.stop("call")

    def frame(self) -> bytes | None:
        """The next frame, None at the end."""
        while not self.waiting:
            data = self.chunk()
            if not data:
                return None
            self.waiting += self.frames.feed(data)
        return self.waiting.popleft()

    def value(self, index: int) -> bytes | None:
        """The reply that holds the value of a call, of which its bytes or their digest came before."""
        self.say(wire.dumps(["get", index]))
        passed: list[bytes] = []
        size = 0
        while (body := self.frame()) is not None and body[:1] != b"g":
            passed.append(body)
            size += len(body)
            if size > self.most + _AHEAD:
                raise wire.Malformed("more than was asked for")
        self.waiting.extendleft(reversed(passed))
        return None if body is None else body[1:]


def compare(box: Box, job: Job, cases: Cases) -> Verdict:
    """Judge by comparing outputs; stops at the first that does not agree."""
    run = Run(box, job.limits)
    most = max(_LOOSE, 8 * max(cases.sizes, default=0))
    batch = Batch(run, most, job.entry_point, cases.limits_s, longest=SHORT, data=False, timed=False)
    try:
        wrong = batch.load(job.code)
        if not wrong:
            batch.begin(cases.inputs)
            wrong = _disagreement(batch, cases)
    except wire.Malformed as error:
        wrong = f"a reply that cannot be read: {error}"
    final = run.end()
    used = float(final["cpu_s"])
    if not wrong:
        return Verdict("pass", "", "data", len(cases.ends), used)
    if wrong == _ENDED:
        status, wrong = run.failure()
        if run.over == "call":
            status, wrong = "timeout", f"{_over_call(batch)}, and did not stop there"
        return Verdict(status, wrong, "data", batch.agreed, used)
    status = "timeout" if run.over in ("cpu", "idle", "call") or wrong.endswith(_OVER_CALL) else "fail"
    return Verdict(status, wrong, "data", batch.agreed, used)


_ENDED = "ended"
_OVER_CALL = "s of CPU time for one call"


def _over_call(batch: Batch) -> str:
    return f"over its limit of {batch.limits_s[min(batch.agreed, len(batch.limits_s) - 1)]:g} {_OVER_CALL}"


def _disagreement(batch: Batch, cases: Cases) -> str:
    """Compare what arrives with what is expected; what is wrong first, or ""."""
    matched = 0  # bytes of the stream
    while matched < len(cases.stream):
        data = batch.chunk()
        if not data:
            return _ENDED
        if cases.stream.startswith(data, matched):
            matched += len(data)
            batch.agreed = bisect_right(cases.ends, matched)
            continue
        begin = cases.ends[batch.agreed - 1] if batch.agreed else 0
        batch.waiting += batch.frames.feed(cases.stream[begin:matched] + data)
        return _by_frames(batch, cases)
    return ""


def _by_frames(batch: Batch, cases: Cases) -> str:
    """The same frame by frame, from the first that differs on."""
    calls, stream, ends = len(cases.ends), cases.stream, cases.ends
    while True:
        body = batch.frame()
        if body is None:
            return _ENDED
        index = batch.agreed
        if index == calls:
            return "" if body[:1] == b"." else "more answers than calls"
        begin = ends[index - 1] if index else 0
        if stream[begin + 4 : ends[index]] != body and (wrong := _second_look(batch, cases, index, body)):
            return f"call {index}: {wrong}"
        batch.agreed += 1


def _second_look(batch: Batch, cases: Cases, index: int, body: bytes) -> str:
    """Whether an output whose bytes differ is right all the same; what is wrong, or ""."""
    kind, reply = body[:1], body[1:]
    if kind in (b"m", b"h"):
        found = batch.value(index)
        if found is None:
            return "its process ended"
        reply = found
    elif kind not in (b"j", b"e"):
        return "ended early" if kind == b"." else "an answer of another form"
    # so long a value cannot be the expected one, and comparing a stranger's sets and dicts can take long
    if len(reply) > max(_LOOSE, 8 * cases.sizes[index]):
        return f"a value of {len(reply)} bytes"
    value = wire.loads(reply, lambda _, name: Opaque(name))
    if type(value) is not list or len(value) != 2 or value[0] != "r":
        told = _told(value)
        return _over_call(batch) if told.startswith("OutOfTime") else told
    try:
        return "" if cases.agrees(index, value[1]) else f"a wrong value: {_short(value[1])}"
    except Exception as error:
        return f"a value that cannot be compared: {type(error).__name__}"


def _told(reply: Any) -> str:
    if type(reply) is list and len(reply) == 3 and reply[0] == "e":
        return f"{reply[1]}: {reply[2]}"[:300]
    return "a reply of another form"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


# -- values wanted -------------------------------------------------------------------------------------------------


def supply(box: Box, program: Program, limits: Limits) -> Outcome:
    """Run a program for its outputs."""
    run = Run(box, limits)
    times = tuple(limits.cpu_s for _ in program.inputs)
    most = max(_LOOSE, limits.output_kb << 10)
    batch = Batch(run, most, program.entry_point, times, longest=_LONGEST, data=True, timed=True)
    outputs: list[object] = []
    seconds: tuple[float, ...] = ()
    try:
        wrong = batch.load(program.code)
        if not wrong:
            batch.begin(packed_inputs(program.inputs))
            wrong, seconds = _collect(batch, outputs, limits.output_kb << 10)
    except wire.Malformed as error:
        wrong = f"a reply that cannot be read: {error}"
    run.end()
    held = tuple(box.info["layers"])
    if not wrong:
        return Outcome("ok", tuple(outputs), seconds, "", held)
    if wrong == _ENDED:
        wrong = run.failure()[1]
    timeout = run.over in ("cpu", "idle", "call")
    return Outcome("timeout" if timeout else "error", tuple(outputs), seconds, wrong, held)


def _collect(batch: Batch, outputs: list[object], most: int) -> tuple[str, tuple[float, ...]]:
    size = 0
    while (body := batch.frame()) is not None:
        kind, reply = body[:1], body[1:]
        size += len(body)
        if size > most:
            return f"more than {most >> 10} KiB of output", ()
        if kind == b".":
            seconds = wire.loads(reply, lambda *_: None)
            if len(outputs) != len(batch.limits_s):
                return f"{len(outputs)} answers to {len(batch.limits_s)} calls", ()
            return "", tuple(map(float, seconds))
        if len(outputs) == len(batch.limits_s):
            return "more answers than calls", ()
        outputs.append(_output(kind, reply))
        batch.agreed = len(outputs)
    return _ENDED, ()


def _output(kind: bytes, reply: bytes) -> object:
    if kind == b"h":
        return Digest(reply[:32], int.from_bytes(reply[32:], "little"))
    value = wire.loads(reply, lambda _, name: Opaque(name))
    if type(value) is list and len(value) == 2 and value[0] == "r":
        return value[1]
    if type(value) is list and len(value) == 3 and value[0] == "e":
        return Raised(str(value[1]), str(value[2]))
    raise wire.Malformed("a reply of another form")


# -- tests, away from the candidate --------------------------------------------------------------------------------


def split(box: Box, checker: Callable[[], Box], discard: Callable[[], None], job: Job, tests: Tests) -> Verdict:
    """Let a checker run the tests over the candidate. `checker` gives one that is well, `discard` ends it."""
    judge = checker()
    run = Run(box, job.limits)
    body = {
        "code": job.code,
        "entry_point": job.entry_point,
        "test": tests.test,
        "prompt": tests.prompt,
        "check": tests.check,
    }
    with run.channel:  # the checker's from here on
        judge.say(body, [run.channel.fileno()])
    said = _listen(run, judge)
    if said is None:
        discard()
    final = run.end()
    status, detail = said or ("fail", "the checker did not get over what the candidate supplied")
    if status == "pass":
        return Verdict("pass", "", "split", 0, final["cpu_s"])
    if final["why"] != "stopped" or run.over:
        ended, why = run.failure()
        if ended == "timeout" or detail.startswith("the candidate's process ended"):
            return Verdict(ended, why, "split", 0, final["cpu_s"])
    return Verdict("fail", detail, "split", 0, final["cpu_s"])


def _listen(run: Run, judge: Box) -> tuple[str, str] | None:
    """What the checker says; None when it does not get to say anything."""
    poll = select.poll()
    for box in (judge, run.box):
        poll.register(box.control, select.POLLIN)
    deadline = None
    while deadline is None or time.monotonic() < deadline:
        events = {descriptor for descriptor, _ in poll.poll(_TICK_S * 1000)}
        if judge.control.fileno() in events:
            try:
                status, detail = judge.hear()[0]
            except EOFError:
                return None
            return status, detail
        if run.box.control.fileno() in events:
            run.hear()
            if run.final is not None:
                poll.unregister(run.box.control)
                deadline = time.monotonic() + _CHECKER_S
    return None
