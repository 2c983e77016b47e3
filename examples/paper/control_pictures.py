#!/usr/bin/env python3
"""Pictures for learning control on the starter model: pictograms anywhere, of any size, turned.

    VENV/bin/python control_pictures.py OUT [--concepts N] [--each K]

The starter model draws every pictogram upright in the middle, so that a caption says nothing about
place, size and angle here: only a control signal does. OUT/train holds K pictures of each of the
first N concepts (on white or on a flat colour that the caption names), OUT/test one more of every
other concept. Needs what examples/starter/render.py needs; the same versions give the same bytes.
"""

import argparse
import random
import shutil
import sys
import zlib
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "starter"))
import concepts as concept_list  # noqa: E402
from drawing import COLOURS, WHITE, fit, glyph, visible_colours  # noqa: E402

SIZE = 128
SMALLEST, LARGEST = 0.4, 0.8  # of the side
STEEPEST = 35  # degrees


def placed(picture, lot, background):
    """The picture turned, mirrored or not, somewhere on a square."""
    share = lot.uniform(SMALLEST, LARGEST) * SIZE
    scaled = fit(picture, share, share)
    if lot.random() < 0.5:
        scaled = scaled.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned = scaled.rotate(lot.uniform(-STEEPEST, STEEPEST), Image.Resampling.BICUBIC, expand=True)
    canvas = Image.new("RGB", (SIZE, SIZE), background)
    place = tuple(lot.randint(0, max(0, SIZE - side)) for side in turned.size)
    canvas.paste(turned, place, turned)
    return canvas


def draw(concept, number, folder):
    lot = random.Random(zlib.crc32(f"{concept.name} {number}".encode()))
    picture = glyph(concept.emoji)
    colour = lot.choice([None, *visible_colours(picture)]) if lot.random() < 0.6 else None
    caption = concept.label + (f" on {colour} background" if colour else "")
    path = folder / f"{concept.file_name}-{number}.png"
    placed(picture, lot, COLOURS[colour] if colour else WHITE).save(path)
    path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--concepts", type=int, default=120)
    parser.add_argument("--each", type=int, default=8)
    args = parser.parse_args()
    for part in ("train", "test"):
        shutil.rmtree(args.out / part, ignore_errors=True)
        (args.out / part).mkdir(parents=True)
    chosen = concept_list.all_concepts([])[0][:args.concepts]
    for concept in chosen:
        for number in range(args.each):
            draw(concept, number, args.out / "train")
    for concept in chosen[::2]:
        draw(concept, args.each, args.out / "test")
    print(f"{len(chosen)} concepts, {args.each} pictures each, {len(chosen[::2])} test pictures")


if __name__ == "__main__":
    main()
