"""The main table for a paper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from mixmerge import Results, reporter

from . import content, overview, words

_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "†": r"\textsuperscript{\dag}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "★": r"$\star$",
    "∞": r"$\infty$",
    words.MINUS: "$-$",
    words.NO_BREAK: "~",
}


@reporter(name="latex", version="1")
def latex(
    results: Results, out: Path, /, *, metrics: Literal["primary", "all"] = "primary", label: str = "tab:mixmerge"
) -> Sequence[Path]:
    """`table.tex`: the main table, to \\input into a paper that loads booktabs.

    Of recorded results each experiment has a file of its own, EXPERIMENT.tex, with its name behind the label.

    metrics   "primary" keeps the main metric of each task, "all" shows every one
    label     the table's \\label
    """
    out.mkdir(parents=True, exist_ok=True)
    if results.parts:
        folders = [overview.folder(part) for part in results.parts]
        texts = [
            _latex(part, content.sheet(part, primary_only=metrics == "primary"), f"{label}:{folder}")
            for part, folder in zip(results.parts, folders, strict=True)
        ]
        paths = [out / f"{folder}.tex" for folder in folders]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        return paths
    page = content.sheet(results, primary_only=metrics == "primary")
    path = out / "table.tex"
    path.write_text(_latex(results, page, label), encoding="utf-8")
    return [path]


def _latex(results: Results, page: content.Sheet, label: str) -> str:
    places, spans, start = [], [], 2
    for task, columns in page.tasks:
        places.append(rf"\multicolumn{{{columns}}}{{c}}{{{tex(task)}}}")
        spans.append(rf"\cmidrule(lr){{{start}-{start + columns - 1}}}")
        start += columns
    # Two lines in a head or in a cell are a nested tabular: it needs no package beyond booktabs.
    heads = [_stacked(tex(f"{head.label} {head.arrow}"), tex(head.unit)) for head in page.heads]
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering\small",
        r"\begin{tabular}{l" + "r" * (len(page.heads) + 1) + "}",
        r"\toprule",
        " & ".join(["", *places, ""]) + r" \\",
        " ".join(spans),
        " & ".join(["model", *heads, _stacked("average", r"\%")]) + r" \\",
    ]
    kind = ""
    for entries in page.lines:
        if entries.line.kind != kind:
            lines.append(r"\midrule")
            kind = entries.line.kind
        lines.append(_latex_line(entries))
    caption = tex(f"{results.name}. {content.summary(results)} {_latex_legend(results, page)}")
    return "\n".join(
        [*lines, r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", rf"\label{{{label}}}", r"\end{table}", ""]
    )


def _latex_line(entries: content.Entries) -> str:
    name = tex(entries.name) + (r"~$\star$" if entries.line.winner else "")
    average = tex(entries.average.replace(f"{words.NO_BREAK}%", "")) or "--"
    if entries.line.best:
        average = rf"\textbf{{\boldmath {average}}}"
    elif entries.line.near_best:
        average += tex("†")
    return " & ".join([name, *(_latex_cell(cell) for cell in entries.cells), average]) + r" \\"


def _latex_cell(cell: content.Entry | None) -> str:
    if cell is None:
        return "--"
    score = rf"\textbf{{{tex(cell.value)}}}" if cell.best else tex(cell.value) + (tex("†") if cell.near else "")
    error = rf" {{\scriptsize $\pm$ {tex(cell.error)}}}" if cell.error else ""
    return rf"{score}{error} {{\scriptsize ({tex(cell.change)})}}"


def _stacked(first: str, second: str) -> str:
    return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{first}\\{second}\end{{tabular}}" if second else first


def _latex_legend(results: Results, page: content.Sheet) -> str:
    kind = "paired" if any(row.samples for row in results.rows) else "unpaired"
    sizes = [f"{head.task} n = {count}" for head, count in _sizes(page)]
    return (
        "± one standard error; in brackets the change against the best expert on that task, better is positive; "
        f"bold: best single model; †: not clearly worse than the best (95 % {kind} interval includes zero); "
        f"★: the merge that won. {'; '.join(sizes)}."
    )


def _sizes(page: content.Sheet) -> Iterable[tuple[content.Head, str]]:
    for index, head in enumerate(page.heads):
        counts = {re.split(r"of |= ", cell.count)[-1] for line in page.lines if (cell := line.cells[index])}
        if head.primary and counts:
            yield head, "/".join(sorted(counts))


def tex(text: str) -> str:
    """`text` with everything escaped that LaTeX would read as a command; other letters are left to its UTF-8 input."""
    return "".join(_TEX.get(sign, sign) for sign in text)
