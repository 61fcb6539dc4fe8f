"""Verbs that look: what there is, what a name stands for, what this machine can do; and the worker."""

from __future__ import annotations

import argparse
import json


def plugins(arguments: argparse.Namespace) -> int:
    from ..registry import Registry

    found = [
        {"kind": c.kind, "name": c.name, "version": c.version, "plugin": c.plugin, "summary": c.summary}
        for c in Registry(arguments.plugins)
    ]
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    for one in found:
        print(f"{one['kind']:10}  {one['name']:16}  {one['summary']}  [{one['plugin']}]")
    return 0


def tasks(arguments: argparse.Namespace) -> int:
    from ..paths import tasks_folder
    from ..registry import Registry

    if arguments.path:
        print(tasks_folder())
        return 0
    found = [
        {"name": name, "evaluator": component.name, "summary": summary}
        for component in Registry(arguments.plugins)
        if component.tasks
        for name, summary in component.tasks()
    ]
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    for one in found:
        print(f"{one['name']:32}  {one['summary']}")
    return 0


def show(arguments: argparse.Namespace) -> int:
    from .. import show
    from ..registry import Registry
    from ..store import Store

    print(show.show(arguments.name, Registry(arguments.plugins), Store(arguments.out / "store"), js=arguments.json))
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    from ..doctor import examine

    found = examine()
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    tried = found.pop("sandbox")
    for name, value in found.items():
        print(f"{name:14}  {', '.join(map(str, value)) if isinstance(value, list) else value}")
    print("a generated program in the sandbox, tried:" if isinstance(tried, list) else f"sandbox         {tried}")
    for one in tried if isinstance(tried, list) else []:
        print(f"  {'ok' if one['ok'] else '!!'}  {one['what']}" + (f"  ({one['how']})" if one["how"] else ""))
    return 0


def worker(arguments: argparse.Namespace) -> int:
    from .. import work

    work.main(arguments.store, tuple(arguments.plugins))
    return 0
