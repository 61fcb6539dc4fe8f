"""In a candidate's process: loads the code and serves calls to it. Never decides anything: it only supplies values.

Everything here runs beside the candidate, which may change or imitate any of it. What arrives on the other side is
therefore taken for data and for nothing else.

Requests are JSON lists: ["load", code], ["call", what, arguments, keywords], ["iter" | "len", handle],
["attr", handle, name], and ["batch", {…}] followed by a frame of inputs. Replies: ["r", value] or ["e", type, text].
"""

from __future__ import annotations

import hashlib
import marshal
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from . import wire

_TEXT = 2000  # characters of an exception's text
_FLUSH_BYTES, _FLUSH_S = 32 << 10, 0.02
_KEPT = 256 << 20  # bytes of values that are kept for a second look
_TICK_S = 0.1

Reply = list[Any]


class OutOfTime(BaseException):
    """One call is over its limit. A candidate may catch it; then its process is ended from outside."""


class Session:
    """The state of one candidate: its globals, and the objects that callers hold handles of."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.module = type(sys)("candidate")  # not __main__: what a program does only as a script is not asked for
        self.objects: list[Any] = []

    def serve(self) -> None:
        """Answer until the other side closes."""
        sys.modules["candidate"] = self.module
        handlers: dict[str, Callable[..., Any]] = {
            "load": self.load,
            "call": self.call,
            "iter": lambda handle: list(handle),
            "len": lambda handle: len(handle),
            "attr": lambda handle, name: getattr(handle, name),
        }
        while (body := wire.receive(self.channel)) is not None:
            operation, *arguments = wire.loads(body, lambda handle, _: self.objects[handle])
            if operation == "batch":
                Batch(self, arguments[0]).run()
            else:
                wire.send(self.channel, self.result(handlers[operation], *arguments))

    def load(self, code: str) -> Reply:
        """Execute the code; gives the names that it defines, a module's as (name, module)."""
        space = self.module.__dict__
        exec(compile(code, "<candidate>", "exec", dont_inherit=True), space)
        return [
            (name, value.__name__) if type(value) is type(sys) else name
            for name, value in list(space.items())
            if type(name) is str and name != "__builtins__"
        ]

    def call(self, what: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        function = self.module.__dict__[what] if type(what) is str else what
        return function(*arguments, **keywords)

    def result(self, function: Callable[..., Any], *arguments: Any) -> bytes:
        """Call, and put the outcome into a reply."""
        try:
            value = function(*arguments)
        except BaseException as error:
            return failure(error)
        return self.reply(value)

    def reply(self, value: Any) -> bytes:
        try:
            return wire.dumps(["r", wire.encode(value, self.keep)])
        except BaseException:  # it contains itself, or objects to being read: no plain data either way
            return wire.dumps(["r", self.keep(value)])

    def keep(self, value: Any) -> dict[str, Any]:
        self.objects.append(value)
        return {"t": "o", "id": len(self.objects) - 1, "n": type(value).__name__}


def failure(error: BaseException) -> bytes:
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"), "Exception")
    try:
        text = str(error)[:_TEXT]
    except BaseException:
        text = ""
    return wire.dumps(["e", "OutOfTime" if type(error) is OutOfTime else name, text])


class Batch:
    """Many calls of one function; outputs leave in the form in which they are compared.

    Per call a frame: "m" and the value marshalled (version 2: the same bytes for the same data); "h" and the digest of
    that, when it is long; "j" and a reply, for what marshal does not carry; "e" and a reply, when it raised. At the end
    "." and, where asked for, the seconds that each call took. In between, ["get", i] asks for the i-th value as data.

    Settings: "entry", "limits" (CPU seconds per call), "longest" (bytes that travel as they are), "data" (replies
    instead of marshalled values), "timed".
    """

    def __init__(self, session: Session, settings: dict[str, Any]) -> None:
        self.session, self.settings = session, settings
        self.longest: int = settings["longest"]
        self.kept: dict[int, bytes] = {}
        self.room = _KEPT
        self.out: list[bytes] = []
        self.size = 0
        self.index = 0
        self.seconds: list[float] = []

    def run(self) -> None:
        body = wire.receive(self.session.channel) or b""
        inputs = marshal.loads(body[1:]) if body[:1] == b"m" else wire.loads(body[1:], lambda *_: None)
        function = self.session.module.__dict__.get(self.settings["entry"])
        self.watch_time()
        clock, flushed = time.monotonic, time.monotonic()
        for self.index, arguments in enumerate(inputs):
            began = time.process_time() if self.settings["timed"] else 0.0
            try:
                value = function(*arguments)  # type: ignore[misc]
            except BaseException as error:
                self.add(b"e" + failure(error))
            else:
                self.add(self.form(value))
            if self.settings["timed"]:
                self.seconds.append(time.process_time() - began)
            if self.size > _FLUSH_BYTES or clock() - flushed > _FLUSH_S:
                self.flush()
                self.answer(wait=False)
                flushed = clock()
        signal.setitimer(signal.ITIMER_PROF, 0)
        self.add(b"." + wire.dumps(self.seconds))
        self.flush()
        self.answer(wait=True)

    def watch_time(self) -> None:
        """Raise OutOfTime in a call that is over its limit, found out by a tick that costs the calls nothing."""
        limits: list[float] = self.settings["limits"]
        last, began = -1, 0.0

        def tick(*_: Any) -> None:
            nonlocal last, began
            now = time.process_time()
            if self.index != last:
                last, began = self.index, now
            elif now - began > limits[last]:
                raise OutOfTime

        signal.signal(signal.SIGPROF, tick)
        signal.setitimer(signal.ITIMER_PROF, _TICK_S, _TICK_S)

    def form(self, value: Any) -> bytes:
        try:
            data = marshal.dumps(value, 2)
            # marshal turns whatever has a buffer (numpy's arrays) into bytes, whose type code is "s"
            plain = b"s" not in data or is_plain(value)
        except BaseException:
            plain = False
        if not plain:
            data = self.session.reply(value)
            self.session.objects.clear()
            return b"j" + data
        if len(data) > self.longest:
            self.keep(data)
            digest = hashlib.blake2b(data, digest_size=32).digest()
            return b"h" + digest + (len(data).to_bytes(8, "little") if self.settings["data"] else b"")
        if self.settings["data"]:
            return b"j" + self.session.reply(value)
        self.keep(data)
        return b"m" + data

    def keep(self, data: bytes) -> None:
        if len(data) <= self.room:
            self.kept[self.index] = data
            self.room -= len(data)

    def add(self, body: bytes) -> None:
        self.out.append(wire.frame(body))
        self.size += len(body)

    def flush(self) -> None:
        self.session.channel.sendall(b"".join(self.out))
        self.out, self.size = [], 0

    def answer(self, *, wait: bool) -> None:
        """Give the values that were asked for; with `wait`, until the other side has seen enough."""
        channel = self.session.channel
        while wait or select.select([channel], [], [], 0)[0]:
            body = wire.receive(channel)
            if body is None:
                os._exit(0)
            operation, *arguments = wire.loads(body, lambda *_: None)
            if operation != "get":
                return
            kept = self.kept.get(arguments[0])
            data = b'["e","Lost","too long"]' if kept is None else self.session.reply(marshal.loads(kept))
            wire.send(channel, b"g" + data)


_PLAIN = {int, float, str, bool, type(None), bytes, complex}


def is_plain(value: Any) -> bool:
    """Whether a value consists of builtin types alone."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind in (list, tuple, set, frozenset):
        return set(map(type, value)) <= _PLAIN or all(map(is_plain, value))
    return kind is dict and all(map(is_plain, value)) and all(map(is_plain, value.values()))


def rehearse() -> None:
    """Do once, on a program of ours, what every candidate does, so that a fork finds it done.

    Python makes much at its first use: the first `compile` alone takes more than a millisecond.
    """
    ours, theirs = socket.socketpair()
    settings = {"entry": "f", "limits": [1.0], "longest": 96, "data": False, "timed": False}
    said = [wire.dumps(["load", "import math\n\ndef f(x):\n    return [x, 0.5, 'text']\n"])]
    said += [wire.dumps(wire.encode(["batch", settings], str)), b"m" + marshal.dumps([[1]], 2), wire.dumps(["get", 0])]
    said += [wire.dumps(["end"]), wire.dumps(["call", "f", [1], wire.encode({}, str)])]
    with ours, theirs:
        for body in said:
            wire.send(ours, body)
        ours.shutdown(socket.SHUT_WR)
        Session(theirs).serve()
    del sys.modules["candidate"]
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def main(descriptor: int) -> None:
    """Serve on a socket; in the candidate's process, locked down already."""
    sys.argv = ["candidate"]
    Session(socket.socket(fileno=descriptor)).serve()
