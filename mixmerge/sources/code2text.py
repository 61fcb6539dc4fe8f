"""Summarising functions: what training rows and the lm-eval tasks ask alike, from rows of CodeXGLUE's code-to-text.

The set is CodeXGLUE's (arXiv 2102.04664, section 3.8), made of CodeSearchNet's (arXiv 1909.09436), in six languages.
The answer is the first paragraph of the docstring as one line, up to the first line that opens with a tag such as
`@param` (Java, JavaScript, PHP, Ruby) and without the `//` of Go. That is the text of the reference `docstring_tokens`
but for the rare rows where CodeSearchNet cut at an `@` inside a sentence, or across a paragraph.

Only Python's `code` still holds its docstring. It is taken out by a parser (`docstrings.without_docstring`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import SourceError
from . import docstrings

RULES_VERSION = "1"
"""Of what is asked, answered and left out: part of a step's id."""

LANGUAGES: Mapping[str, str] = {
    "python": "Python",
    "java": "Java",
    "javascript": "JavaScript",
    "php": "PHP",
    "ruby": "Ruby",
    "go": "Go",
}
"""CodeXGLUE's six languages: the name in the set, and the proper name."""

PROMPTS: Mapping[str, str] = {
    language: f"{{code}}\n\nSummarise what this {name} function does, in the words of its docstring:"
    for language, name in LANGUAGES.items()
}
"""The prompt of each language, with `{code}` where the code goes. It ends in no white space, since the end of a prompt
decides how a model begins."""

CHAT_PROMPTS: Mapping[str, str] = {
    language: f"Summarise what this {name} function does, in one sentence, as its docstring would begin. "
    f"Answer with that sentence alone.\n\n```{language}\n{{code}}\n```"
    for language, name in LANGUAGES.items()
}
"""The same as a message to a chat model."""

VISIBLE_WORDS = 3
"""Shortest summary, in words, that counts as visible in a prompt: of two words, "view files" say, a program may hold
both by chance."""

Reason = Literal["has no summary", "docstring cannot be taken out of the code", "answer is visible in the prompt"]
"""Why a row is left out."""

_TAG = re.compile(r"@\w")
_TAGGED = ("java", "javascript", "php", "ruby")


@dataclass(frozen=True)
class Example:
    """One function: `code` without its docstring, the `prompt` made of it, and its summary, the `completion`.

    `id` is the row's own, or its number in the file, from 0.
    """

    id: str
    language: str
    code: str
    prompt: str
    completion: str


def prompt(language: str, *, chat: bool = False) -> str:
    """The prompt of `language`, with `{code}` where the code goes. SourceError for one that is not in the set."""
    if language not in PROMPTS:
        raise SourceError(f"code2text has no language {language!r}", hint=f"it has {', '.join(PROMPTS)}")
    return (CHAT_PROMPTS if chat else PROMPTS)[language]


def summary(docstring: str, language: str) -> str:
    """The answer that a docstring gives, as one line; "" when it opens with an empty line of tags."""
    paragraph = re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0]
    lines = []
    for line in paragraph.split("\n"):
        text = line.strip().removeprefix("//").strip() if language == "go" else line.strip()
        if language in _TAGGED and _TAG.match(text):
            break
        lines.append(text)
    return " ".join(" ".join(lines).split())


def example(row: Mapping[str, Any], language: str) -> Example | Reason:
    """The example in a row of CodeXGLUE (columns `code`, `docstring`, and `id` where there is one), or why it has none.

    The answer is visible when its words, at least VISIBLE_WORDS of them, stand in a row in the prompt: in a comment, in
    a message, in the docstring of an inner function. Raises SourceError for an unknown language.
    """
    template = prompt(language)
    completion = summary(row["docstring"] or "", language)
    if not completion:
        return "has no summary"
    code = docstrings.without_docstring(row["code"]) if language == "python" else row["code"]
    if not code or not code.strip():
        return "docstring cannot be taken out of the code"
    text = template.replace("{code}", code.rstrip())
    if visible(completion, text):
        return "answer is visible in the prompt"
    return Example(str(row.get("id", "")), language, code.rstrip(), text, completion)


def examples(rows: Iterable[Mapping[str, Any]], language: str) -> tuple[list[Example], Mapping[Reason, int]]:
    """The examples in rows, in their order, and how many rows were left out for which reason."""
    found: list[Example] = []
    dropped: Counter[Reason] = Counter()
    for number, row in enumerate(rows):
        made = example({"id": number, **row}, language)
        if isinstance(made, Example):
            found.append(made)
        else:
            dropped[made] += 1
    return found, dropped


def visible(answer: str, text: str) -> bool:
    """Whether the words of `answer`, at least VISIBLE_WORDS, stand in a row in `text`; case and punctuation aside."""
    words = docstrings.normal(answer)
    return words.count(" ") >= VISIBLE_WORDS - 1 and f" {words} " in f" {docstrings.normal(text)} "
