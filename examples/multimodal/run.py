#!/usr/bin/env python3
"""Pictures and captions: the small CLIP of assets/starter-features, adapted to captions in German.

    VENV/bin/python examples/multimodal/run.py [--out FOLDER] [--methods FILE] [--seeds SEED...]

The network knows pictograms by their English names. Renderings of Noto Color Emoji get their German names from CLDR;
of each pictogram six are learnt and two held out (recall@1 and @5 in both directions). Needs what
examples/starter/render.py needs, in VENV the packages of examples/starter/requirements.txt.
"""
import pathlib
import random
import sys
import zlib
from xml.etree import ElementTree

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(EXAMPLES / "domains"), str(EXAMPLES / "starter")]
import compare  # noqa: E402
import concepts as concept_list  # noqa: E402
from drawing import fit, glyph  # noqa: E402
from PIL import Image  # noqa: E402

SIZE = 128
LANGUAGE = "de"


def names():
    """The name of a character in the language."""
    tree = ElementTree.parse(f"/usr/share/unicode/cldr/common/annotations/{LANGUAGE}.xml")
    return {entry.get("cp"): entry.text for entry in tree.iter("annotation") if entry.get("type") == "tts"}


def draw(character, lot):
    side = lot.uniform(0.55, 0.95) * SIZE
    picture = fit(glyph(character), side, side).rotate(lot.uniform(-15, 15), Image.Resampling.BICUBIC, expand=True)
    canvas = Image.new("RGB", (SIZE, SIZE), "white")
    place = tuple(lot.randint(0, max(0, SIZE - edge)) for edge in picture.size)
    canvas.paste(picture, place, picture)
    return canvas


def main():
    chosen = compare.arguments(__doc__, "multimodal").parse_args()
    out = chosen.out
    table = names()
    if not (out / "new").exists():
        for part in ("new", "new-held"):
            (out / part).mkdir(parents=True, exist_ok=True)
        count = 0
        for concept in concept_list.all_concepts([])[0]:
            name = table.get(concept.emoji)
            if name is None or count == 150:
                continue
            lot = random.Random(zlib.crc32(concept.emoji.encode()))
            for i in range(8):
                file = out / ("new" if i < 6 else "new-held") / f"{count:03}-{i}.png"
                draw(concept.emoji, lot).save(file)
                file.with_suffix(".txt").write_text(name + "\n")
            count += 1
    compare.run(chosen, "Pictograms and their German names, clip", out, compare.ROOT / "assets" / "starter-features", 400,
                "--task", "contrastive", "--batch-size", 32, "--data", out / "new", "--eval-data", out / "new-held")


if __name__ == "__main__":
    main()
