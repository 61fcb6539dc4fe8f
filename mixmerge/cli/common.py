"""What several verbs share."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..errors import Problem, RecipeError

if TYPE_CHECKING:
    from ..reading import Use
    from ..registry import Registry


def say_isolation(arguments: argparse.Namespace) -> None:
    """Into the environment, where workers find it, and where plain lm-eval says it."""
    if arguments.allow_unsandboxed:
        os.environ["MIXMERGE_ALLOW_UNSANDBOXED"] = "1"
    if arguments.require_isolation is not None:
        os.environ["MIXMERGE_REQUIRE_ISOLATION"] = str(arguments.require_isolation)


def use_of(registry: Registry, kind: str, text: str) -> Use:
    """`name` or `name: {parameter: value}` as it stands on a command line."""
    import yaml

    from ..reading import Use, name_and_parameters

    option = f"--{kind}"
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(
            [Problem(option, f"{text!r} is no YAML", f"such as '{kind}: {{parameter: value}}'")]
        ) from None
    name, given = name_and_parameters(text.strip() if value is None else value)
    if name is None:
        raise RecipeError([Problem(option, f"{text!r} is no {kind}", "write name or 'name: {parameter: value}'")])
    component = registry.get(kind, name)
    if problems := component.problems(given):
        raise RecipeError([Problem(option, what, hint) for _, what, hint in problems])
    return Use(component, component.complete(given))
