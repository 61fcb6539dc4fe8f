"""In the checker's process: runs a benchmark's own tests, away from the candidate, whose names are bound to proxies.

The checker is long-lived and locked down as a candidate is. It holds the tests, the candidate's process does not; what
comes from there is decoded as plain data or stays there as a handle, and an exception as one of the builtin classes.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import random
import socket
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import CodeType
from typing import Any

from . import wire

_MODULES = frozenset(
    [
        *("math", "cmath", "re", "collections", "itertools", "functools", "typing", "heapq", "bisect", "random"),
        *("string", "copy", "datetime", "decimal", "fractions", "statistics", "operator", "json", "hashlib", "sys"),
        *("time", "numpy"),
    ]
)
"""What tests may use because the candidate imported it: the checker's own copy, whatever the candidate did to its."""


class CandidateEnded(BaseException):
    """The candidate's process is gone; no test can catch this by accident."""


class Unsupported(BaseException):
    """The test does something that cannot be carried to another process, such as passing a function."""


class Remote:
    """An object that stays in the candidate's process: equal to itself alone; only plain data ever comes out of it."""

    def __init__(self, proxy: Proxy, handle: int, name: str) -> None:
        self._proxy, self._handle, self._name = proxy, handle, name

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._proxy.ask("call", self, list(arguments), keywords)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._proxy.ask("iter", self))

    def __len__(self) -> int:
        return int(self._proxy.ask("len", self))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._proxy.ask("attr", self, name)

    def __repr__(self) -> str:
        return f"<{self._name} of the candidate>"


class Proxy:
    """The candidate as the tests see it, on the other end of `channel`."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def function(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **keywords: self.ask("call", name, list(arguments), keywords)

    def ask(self, *request: Any) -> Any:
        """Send a request and give what it returned, or raise what it raised, as a builtin exception."""
        reply = self.exchange([wire.encode(part, self._give) for part in request])
        if type(reply) is not list or len(reply) < 2:
            raise wire.Malformed("a reply of another form")
        if reply[0] == "r":
            return reply[1]
        raise _exception(str(reply[1]), str(reply[2]) if len(reply) > 2 else "")

    def exchange(self, request: list[Any]) -> Any:
        try:
            wire.send(self._channel, wire.dumps(request))
            body = wire.receive(self._channel)
        except OSError:
            body = None
        if body is None:
            raise CandidateEnded
        return wire.loads(body, lambda handle, name: Remote(self, handle, name))

    def _give(self, value: Any) -> Any:
        if isinstance(value, Remote):
            return {"t": "o", "id": value._handle, "n": value._name}
        raise Unsupported(f"the test passes a {type(value).__name__}, which cannot leave the checker")


def _exception(name: str, text: str) -> BaseException:
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        kind = Exception
    if not issubclass(kind, Exception) or issubclass(kind, (StopIteration, StopAsyncIteration)):
        kind = RuntimeError  # a candidate's exit ends neither the checker nor a loop of the test
    try:
        return kind(text)
    except TypeError:  # such as UnicodeDecodeError, which takes five arguments
        return Exception(f"{name}: {text}")


@lru_cache(4096)
def _compiled(source: str, name: str) -> CodeType:
    return compile(source, name, "exec", dont_inherit=True)


def _names_in(code: CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names_in(constant)
    return found


def judge(job: dict[str, Any], channel: socket.socket) -> tuple[str, str]:
    """Run one test over one candidate: ("pass" | "fail" | "unsupported", why not). `job` is what `Tests` holds."""
    proxy = Proxy(channel)
    try:
        defined = proxy.ask("load", job["code"])
        if type(defined) is not list:
            raise wire.Malformed("names of another form")
    except CandidateEnded:
        return "fail", "the candidate's process ended while its code was loaded"
    except wire.Malformed as error:
        return "fail", f"a reply that cannot be read: {error}"
    except BaseException as error:
        return "fail", f"the code does not load: {_told(error)}"
    try:
        space = _space(job, proxy, defined)
        exec(_compiled(job["test"], "<test>"), space)
        if job["check"]:
            space["check"](space[job["entry_point"]])
    except CandidateEnded:
        return "fail", "the candidate's process ended"
    except wire.Malformed as error:
        return "fail", f"a reply that cannot be read: {error}"
    except Unsupported as error:
        return "unsupported", str(error)
    except BaseException as error:
        return "fail", _told(error)
    return "pass", ""


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:
        return type(error).__name__


def _space(job: dict[str, Any], proxy: Proxy, defined: list[Any]) -> dict[str, Any]:
    """The globals of the test. What it needs comes, in this order, from the prompt, from Python's builtins, from known
    modules that the candidate imported (the checker's own copies), and from the candidate.

    So a candidate that defines its own `abs` is not asked for it; but its entry point may have a builtin's name.
    """
    entry = job["entry_point"]
    names = {name for name in defined[:5000] if type(name) is str}
    modules = {
        pair[0]: pair[1]
        for pair in defined[:5000]
        if type(pair) is tuple and len(pair) == 2 and all(type(part) is str for part in pair) and pair[1] in _MODULES
    }
    space: dict[str, Any] = {name: __import__(module) for name, module in modules.items() if not name.startswith("__")}
    if job["prompt"]:
        with contextlib.suppress(SyntaxError):  # a prompt that ends inside an expression has no helpers to give
            exec(_compiled(job["prompt"], "<prompt>"), space)
    for name in _names_in(_compiled(job["test"], "<test>")) & names - space.keys():
        if not name.startswith("__") and not hasattr(builtins, name):
            space[name] = proxy.function(name)
    space.pop(entry, None)
    if entry in names:
        space[entry] = proxy.function(entry)
    return space


def serve(control: socket.socket) -> None:
    """Judge one job after another, each with its channel to the candidate; ends with the other side."""
    while True:
        body, descriptors = wire.receive_with(control)
        if body is None:
            return
        random.seed(0)
        with socket.socket(fileno=descriptors[0]) as channel:
            wire.send(control, json.dumps(judge(json.loads(body), channel)).encode())
