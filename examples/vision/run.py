#!/usr/bin/env python3
"""Vision: a small ResNet that knows pictograms of animals and food, adapted to other classes.

    VENV/bin/python examples/vision/run.py [--out FOLDER] [--methods FILE] [--seeds SEED...]

Classes are groups of Noto Color Emoji; every picture is a pictogram of its own, turned, mirrored and placed at random.
The base tells eight groups apart; it is adapted to eight others with 24 pictures each (accuracy on pictures of
pictograms that were not learnt). Needs what examples/starter/render.py needs, in VENV the packages of
examples/starter/requirements.txt.
"""
import pathlib
import random
import sys
import zlib

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(EXAMPLES / "domains"), str(EXAMPLES / "starter")]
import compare  # noqa: E402
import concepts as concept_list  # noqa: E402
from drawing import fit, glyph  # noqa: E402
from PIL import Image  # noqa: E402

SIZE = 48


def draw(emoji, lot):
    side = lot.uniform(0.6, 0.95) * SIZE
    picture = fit(glyph(emoji), side, side)
    if lot.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.rotate(lot.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True)
    canvas = Image.new("RGB", (SIZE, SIZE), "white")
    canvas.paste(picture, tuple(lot.randint(0, max(0, SIZE - edge)) for edge in picture.size), picture)
    return canvas


def write(folder, groups, each, held_out):
    """`each` pictures of every pictogram; every fourth pictogram is held out."""
    for group, emoji in groups:
        for i, one in enumerate(emoji):
            if (i % 4 == 3) != held_out:
                continue
            lot = random.Random(zlib.crc32(one.encode()) + held_out)
            (folder / group).mkdir(parents=True, exist_ok=True)
            for k in range(each):
                draw(one, lot).save(folder / group / f"{i:03}-{k}.png")


def main():
    chosen = compare.arguments(__doc__, "vision").parse_args()
    out = chosen.out
    if not (out / "new-held").exists():
        groups = {}
        for emoji, group in concept_list.read_emoji():
            groups.setdefault(group, []).append(emoji)
        large = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:16]
        for name, names, each in (("base", large[0::2], 12), ("new", large[1::2], 3)):
            write(out / name, names, each, held_out=False)
            write(out / f"{name}-held", chosen, 4, held_out=True)
    folder = compare.new_network(out / "init", {"model_type": "resnet", "blocks": [1, 1, 1, 1], "width": 24,
                                                "small_pictures": True, "image_size": SIZE})
    task = ("--task", "image-classification", "--batch-size", 32)
    model = compare.base(out / "base-run", folder, 900, 2e-3, *task, "--data", out / "base", "--eval-data", out / "base-held")
    compare.run(chosen, "Groups of pictograms to other groups, resnet", out, model, 200, *task, "--data", out / "new",
                "--eval-data", out / "new-held")


if __name__ == "__main__":
    main()
