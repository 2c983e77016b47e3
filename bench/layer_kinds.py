#!/usr/bin/env python3
"""Where the time and the memory of a step go: what `ringlet bench` says.

    bench/layer_kinds.py [--model FOLDER] [--resolution N] [--rounds N] [--steps N] [--methods LIST] [--keep NAME]

The starter model at its own size unless another is named. With --keep the plots become
docs/bench-NAME-{kinds,memory,roofline}.png.
"""
import argparse
import json
import pathlib
import shutil
import tempfile

from compare import BIN, ROOT, run
from results import add_keep, keep, markdown_table, median, spread

PLOTS = ("kinds", "memory", "roofline")


def table(result):
    measured = result["measured"]
    rows, kinds = measured["rows"], list(measured["rows"][0]["kinds"])
    first = next(row for row in rows if row["parameters"])["seconds"]
    speed = measured["speed"]
    passes = [[f"`{row['name']}`" if row["parameters"] else row["name"], row["rows"], f"{row['parameters']:,}",
               spread(row["seconds"]), f"{median(row['seconds']) / median(first):.2f}" if row["parameters"] else "",
               f"{row['peak_bytes'] / 2**20:,.0f}",
               f"{row['kept_bytes'] / 2**20:,.1f}" if row["parameters"] else "",
               f"{100 * row['share_of_products']:.0f} %"] for row in rows]
    by_kind = [[f"`{row['name']}`" if row["parameters"] else row["name"],
                *(f"{1000 * row['kinds'][kind]['seconds']:.1f}" for kind in kinds)] for row in rows]
    return (f"{measured['model']}, {measured['resolution']} pixels, {measured['batch_size']} at a time, "
            f"{measured['precision']} on {measured['device']}, {measured['threads']} threads.\n"
            f"Products: fp32 {speed['fp32_gflops']:.0f}, bf16 {speed['bf16_gflops']:.0f} GFLOP/s; "
            f"memory {speed['memory_gb_per_second']:.1f} GB/s.\n\n"
            + markdown_table(["pass", "pictures", "parameters", "seconds (least..most)", "/ first method", "peak MiB",
                              "kept MiB", "of products"], passes)
            + "\n\nMilliseconds by kind of layer, of one pass more:\n\n"
            + markdown_table(["pass", *kinds], by_kind))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "assets/starter")
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--methods")
    add_keep(parser)
    options = parser.parse_args()
    words = ["--model", options.model.resolve(), "--rounds", options.rounds, "--steps", options.steps]
    for name in ("resolution", "methods"):
        if getattr(options, name):
            words += [f"--{name}", getattr(options, name)]
    with tempfile.TemporaryDirectory() as folder:
        measured = json.loads(run(BIN / "ringlet", "bench", "--json", "--out", folder, *words))
        print(table(keep(parser, options, measured)))
        for plot in PLOTS if options.keep else ():
            shutil.copy(pathlib.Path(folder) / f"{plot}.png", ROOT / f"docs/bench-{options.keep}-{plot}.png")


if __name__ == "__main__":
    main()
