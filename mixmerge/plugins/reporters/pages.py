"""What every page is rendered with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> Environment:
    """Templates of this folder: everything is escaped, and a name that is not known is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("mixmerge.plugins.reporters", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["soft"] = soft
    return made


def soft(text: str) -> str:
    """HTML of a name that may break after `_`, `/` and `:`, and nowhere else: names are long, phones are narrow."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(_(?=\w)|[/:](?=[^\W\d]))", r"\1<wbr>", str(escape(text))))
