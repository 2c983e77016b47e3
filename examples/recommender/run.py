#!/usr/bin/env python3
"""Recommendation: what a Debian package depends on besides what is known of it.

    examples/recommender/run.py [--out FOLDER] [--methods FILE] [--seeds SEED...]

Packages are users, the packages that they depend on are items. Two towers learn from all sections but one, which is
held out; they are adapted to it with half of its packages and measured on the others (recall@10, NDCG@10).
"""
import json
import pathlib
import sys
from collections import Counter

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(EXAMPLES / "domains"), str(EXAMPLES / "language")]
import compare  # noqa: E402
import packages  # noqa: E402

HELD_OUT_SECTION = "science"


def main():
    chosen = compare.arguments(__doc__, "recommender").parse_args()
    out = chosen.out
    records = packages.records()
    counts = Counter(name for record in records for name in packages.dependencies(record))
    items = sorted(name for name, count in counts.items() if count >= 20)
    known = set(items)
    rows = {False: [], True: []}
    for record in records:
        basket = [name for name in packages.dependencies(record) if name in known]
        if len(basket) >= 3:
            rows[record["Section"] == HELD_OUT_SECTION].append({"user": record["Package"], "items": basket})
    base_rows, new_rows = packages.every(rows[False], 12000), rows[True]
    folder = compare.new_network(out / "init", {"model_type": "two-tower", "items": len(items), "width": 64,
                                                "inner_width": 128})
    (folder / "items.txt").write_text("\n".join(items) + "\n")
    parts = {"base": base_rows[:-1000], "base-held": base_rows[-1000:], "new": new_rows[::2], "new-held": new_rows[1::2]}
    for name, part in parts.items():
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    task = ("--task", "recommendation", "--batch-size", 64)
    model = compare.base(out / "base", folder, 1500, 5e-3, *task, "--data", out / "base.jsonl", "--eval-data",
                         out / "base-held.jsonl")
    compare.run(chosen, f"Dependencies of packages in {HELD_OUT_SECTION}, two towers, {len(items)} items", out, model, 300, *task,
                "--data", out / "new.jsonl", "--eval-data", out / "new-held.jsonl")


if __name__ == "__main__":
    main()
