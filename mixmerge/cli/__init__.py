"""The command line: thin verbs over the library. stdout is data, stderr is progress.

arguments   the parser of every verb
recipes     recipe, check, plan, report, compare
models      merge, diagnose, score: what needs no recipe
looking     plugins, tasks, show, doctor, and the worker
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..errors import MixmergeError
from .arguments import make_parser, refuse

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status: 0 done, 1 an error that the user can mend, 2 wrong usage, 130 interrupted."""
    arguments, unknown = make_parser().parse_known_args(argv)
    if unknown:
        refuse(arguments.parser, unknown)
    arguments.plugins += getattr(arguments, "more_plugins", [])
    try:
        return int(arguments.verb(arguments) or 0)
    except MixmergeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        print(f"error: {error.filename}: {(error.strerror or str(error)).lower()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
