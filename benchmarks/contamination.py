"""How long the contamination gate takes: 250,000 rows of real instructions and code against HumanEval+ and MBPP+.

    MIXMERGE_DATA=DIR python benchmarks/contamination.py [--rows N] [--json]

DIR holds leetcode/, gpteacher/, humaneval_plus/ and mbpp_plus/, as `tests/` find them; rows repeat. Seconds are of CPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from pathlib import Path

from mixmerge.contamination import compare
from mixmerge.sources import DataSpec, load_rows
from mixmerge.sources.files import read_file
from mixmerge.types import Document

ROWS = {
    "leetcode/LeetCodeDataset-v0.2.0-train.jsonl.gz": ("query", "response"),
    "gpteacher/codegen-instruct.json": ("{instruction}\n{input}", "response"),
}
SETS = {"humaneval_plus": "humaneval_plus/HumanEvalPlus.jsonl.gz", "mbpp_plus": "mbpp_plus/MbppPlus.jsonl.gz"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    data = Path(os.environ["MIXMERGE_DATA"])
    some = [
        row
        for file, (prompt, answer) in ROWS.items()
        for row in load_rows(DataSpec(str(data / file), prompt, answer), 0).rows
    ]
    sets = {name: [_document(row) for row in read_file(data / file)] for name, file in SETS.items()}
    rows = list(itertools.islice(itertools.cycle(some), arguments.rows))
    size = sum(len(row["prompt"]) + len(row["completion"]) for row in rows) / 1e6
    start = time.process_time()
    hits = sum(1 for _ in compare(rows, "instructions", sets))
    took = time.process_time() - start
    found = {"rows": len(rows), "megabytes": round(size), "documents": sum(map(len, sets.values())), "hits": hits}
    found |= {"cpu_s": round(took, 1), "megabytes_per_s": round(size / took, 1)}
    print(json.dumps(found) if arguments.json else "\n".join(f"{name:16} {value}" for name, value in found.items()))


def _document(row: object) -> Document:
    assert isinstance(row, dict)
    return Document(row["task_id"], row["prompt"], (row["prompt"] + row["canonical_solution"],))


if __name__ == "__main__":
    main()
