"""The model card and the extra files of a merge that is kept. A leaf."""

from __future__ import annotations

from pathlib import Path

import yaml

from .types import Checkpoint


def write_card(model: Checkpoint, out: Path, digest: str) -> None:
    """Write README.md beside a written merge: how it came to be, under which licences, and its digest.

    `digest` is the sha256 that a rebuild must match. Files that the merger gives (such as a mergekit YAML) go with it.
    """
    derivation = model.derivation
    files = dict(derivation.files(derivation)) if derivation and derivation.files else {}
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8")
    (out / "README.md").write_text(_card(model, digest, sorted(files)), encoding="utf-8")


def _card(model: Checkpoint, digest: str, files: list[str]) -> str:
    derivation = model.derivation
    front = {"library_name": "transformers", "tags": ["mixmerge", "merge"]}
    lines = [f"# {model.name}", ""]
    if derivation is None:
        lines += [f"Written by mixmerge from `{model.path.name}`."]
    else:
        front["tags"] = ["mixmerge", "merge", derivation.method]
        lines += [
            f"Merged by mixmerge with `{derivation.method}` from {derivation.base.name}.",
            "",
            "| expert | weight | licences of its data |",
            "|---|---|---|",
            *(
                f"| {expert.name} | {weight:g} | {expert.licence or 'not stated'} |"
                for expert, weight in zip(derivation.experts, derivation.weights, strict=True)
            ),
            "",
            f"Parameters: `{dict(derivation.parameters)}`; seed {derivation.seed}.",
            f"Licence of the base: {derivation.base.licence or 'not stated'}.",
        ]
    lines += ["", f"Config, tokenizer and chat template are the base's, byte for byte. Weights: `{digest}`."]
    if files:
        lines += ["", f"Beside this card: {', '.join(f'`{name}`' for name in files)}."]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n" + "\n".join(lines) + "\n"
