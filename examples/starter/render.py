#!/usr/bin/env python3
"""Makes the training data of the starter model: pictures with captions, drawn from an emoji font.

    python3 -m venv VENV && VENV/bin/pip install -r requirements.txt
    apt-get install fonts-noto-color-emoji unicode-cldr-core unicode-data
    VENV/bin/python render.py OUT [--concepts N] [--size 128]

OUT/pictures/white     one picture a concept, on white, under its CLDR name
OUT/pictures/alias     the same, under an everyday name ("car" for "automobile")
OUT/pictures/colour    the same, on one or two of eight flat colours
OUT/pictures/scene     pairs, small things, coloured shapes, hats on heads, things in other colours
OUT/held_out/NAME      five pictures each of things that no training picture shows
OUT/init               the model folder to train: configuration and tokenizer, no weights
OUT/concepts.txt       the concepts in order: name, tab, code point

Versions used: Debian fonts-noto-color-emoji 2.042, unicode-cldr-core 41, unicode-data 15.0; the
same ones give the same bytes. The font is under the SIL Open Font License. The last ten of
prompts.txt are combinations that no training picture shows, the others are captions of training
pictures.
"""

import argparse
import colorsys
import random
import re
import shutil
import zlib
from pathlib import Path

from PIL import Image

import concepts as concept_list
from drawing import (COLOURS, WHITE, fit, glyph, on_background, recoloured, shape, side_by_side,
                     visible_colours, wearing)
from init_folder import write_init_folder

HUES = ("red", "orange", "yellow", "green", "blue", "purple")
SHAPES = ("circle", "square", "triangle", "star", "heart")
NEW_PROMPTS = 10  # the last ones of prompts.txt

HEADS = """dog face;cat face;tiger face;cow face;pig face;mouse face;rabbit face;monkey face;bear;
panda;koala;lion;fox;wolf;hamster;frog;grinning face;penguin"""
HATS = "crown;top hat;woman's hat;graduation cap;billed cap;ribbon"
RECOLOURED = """red apple;automobile;balloon;tulip;t-shirt;umbrella;butterfly;bird;mushroom;fish;
backpack;dress;bus;rose;airplane;kite"""
SMALL = 60  # how many "small A" pictures
PAIRS = 120  # how many "A and B" pictures


def split_names(text):
    return [name.strip() for name in text.split(";")]


class Album:
    """Writes pictures, each with a caption of its own, and none that the prompts are to try."""

    def __init__(self, folder, size):
        self.folder, self.size = folder, size
        aliases = concept_list.read_aliases()
        names = sorted(aliases, key=len, reverse=True)
        self.named = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
        self.aliases = aliases
        self.kept_out = {self.plain(prompt)
                         for prompt in concept_list.read_lines("prompts.txt")[-NEW_PROMPTS:]}
        self.captions, self.counts = {}, {}  # caption: its picture; kind: how many

    def plain(self, caption):
        """The caption in everyday names, for comparing."""
        return self.named.sub(lambda match: self.aliases[match.group()], caption)

    def takes(self, caption):
        """Whether it is new and not kept out."""
        return caption not in self.captions and self.plain(caption) not in self.kept_out

    def add(self, kind, stem, caption, picture, background=WHITE, share=0.8):
        """Writes a picture, unless its caption has one or is kept out."""
        if not self.takes(caption):
            return
        path = self.folder / kind / (stem + ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        on_background(picture, self.size, background, share).save(path)
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        self.captions[caption] = path
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def add_scene(self, caption, picture, **placing):
        stem = f"{self.counts.get('scene', 0):04}-" + re.sub(r"[^a-z0-9]+", "-", caption)
        self.add("scene", stem, caption, picture, **placing)


def draw_concepts(album, chosen):
    """Each concept on white and on one or two colours; an alias takes the second colour."""
    names = {concept.name for concept in chosen}
    for number, concept in enumerate(chosen):
        picture = glyph(concept.emoji)
        stem = f"{number:04}-{concept.file_name}"
        album.add("white", stem, concept.name, picture)
        if concept.alias and concept.alias not in names:
            album.add("alias", stem, concept.alias, picture)
        lot = random.Random(zlib.crc32(concept.name.encode()))
        colours = [colour for colour in visible_colours(picture)
                   if album.takes(f"{concept.name} on {colour} background")
                   and album.takes(f"{concept.label} on {colour} background")]
        lot.shuffle(colours)
        labels = [concept.name, concept.label][:2 if concept.alias else lot.choice((1, 2))]
        for label, colour in zip(labels, colours):
            album.add("colour", f"{stem}-{colour}", f"{label} on {colour} background", picture,
                      background=COLOURS[colour])


def draw_shapes(album):
    for kind in SHAPES:
        for name, colour in COLOURS.items():
            picture = shape(kind, colour)
            album.add_scene(f"{name} {kind}", picture)
            lot = random.Random(zlib.crc32(f"{name} {kind}".encode()))
            others = [other for other in COLOURS
                      if other != name and album.takes(f"{name} {kind} on {other} background")]
            other = lot.choice(others)
            album.add_scene(f"{name} {kind} on {other} background", picture,
                            background=COLOURS[other])


def draw_scenes(album, chosen):
    """The pictures that show how words go together."""
    lot = random.Random(1)
    by_name = {concept.name: concept for concept in chosen}
    # Not the whole dog: "dog" stands for the dog's face here.
    taken = {concept.alias for concept in chosen}
    everyday = [concept for concept in chosen[:120]
                if len(concept.label.split()) < 3 and concept.name not in taken]
    for concept in lot.sample(everyday, min(SMALL, len(everyday))):
        album.add_scene(f"small {concept.label}", glyph(concept.emoji), share=0.36)
    for _ in range(PAIRS if len(everyday) > 1 else 0):
        left, right = lot.sample(everyday, 2)
        if album.takes(f"{right.label} and {left.label}"):
            album.add_scene(f"{left.label} and {right.label}",
                            side_by_side(glyph(left.emoji), glyph(right.emoji)), share=0.94)
    heads = [by_name[name] for name in split_names(HEADS) if name in by_name]
    hats = [by_name[name] for name in split_names(HATS) if name in by_name]
    for head in heads:
        for hat in hats:
            album.add_scene(f"{head.label} with {hat.label}",
                            wearing(glyph(head.emoji), glyph(hat.emoji)), share=0.86)
    for concept in [by_name[name] for name in split_names(RECOLOURED) if name in by_name]:
        picture = glyph(concept.emoji)
        for name in HUES:
            caption = f"{name} {concept.label}"
            album.add_scene(caption, recoloured(picture, name))


def draw_held_out(folder, held_out):
    """Five pictures each, as somebody's own would be: sizes, backgrounds and angles vary."""
    for concept in held_out:
        lot = random.Random(zlib.crc32(concept.name.encode()))
        (folder / concept.name).mkdir(parents=True)
        for number, size in enumerate((256, 224, 192, 160, 128)):
            hue, angle = lot.random(), lot.uniform(-15, 15)
            light = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.25, 0.95)]
            background = WHITE if number == 0 else tuple(light)
            picture = fit(glyph(concept.emoji), 512, 512)
            picture = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True)
            picture = picture.crop(picture.getchannel("A").getbbox())
            share = lot.uniform(0.6, 0.85)
            on_background(picture, size, background, share).save(
                folder / concept.name / f"{number}.png")


def check_prompts(album, all_drawn):
    """The first prompts are captions of training pictures, the last ones are none."""
    prompts = concept_list.read_lines("prompts.txt")
    plain = {album.plain(caption) for caption in album.captions}
    for prompt in prompts[:-NEW_PROMPTS]:
        if all_drawn and prompt not in album.captions:
            raise SystemExit(f"prompts.txt: no picture is named '{prompt}'")
    for prompt in prompts[-NEW_PROMPTS:]:
        if album.plain(prompt) in plain:
            raise SystemExit(f"prompts.txt: a picture shows '{prompt}' already")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--concepts", type=int, help="only the first N (default: all)")
    parser.add_argument("--size", type=int, default=128, help="side of the training pictures")
    args = parser.parse_args()
    if args.out.exists() and any(args.out.iterdir()) and not (args.out / "concepts.txt").exists():
        raise SystemExit(f"{args.out} holds something else")
    for part in ("pictures", "held_out"):
        shutil.rmtree(args.out / part, ignore_errors=True)
    args.out.mkdir(parents=True, exist_ok=True)
    ordered, held_out = concept_list.all_concepts(split_names(f"{HEADS};{HATS};{RECOLOURED}"))
    chosen = ordered[:args.concepts]
    lines = [f"{concept.name}\tU+{ord(concept.emoji):04X}\n" for concept in chosen]
    (args.out / "concepts.txt").write_text("".join(lines), encoding="utf-8")
    album = Album(args.out / "pictures", args.size)
    draw_concepts(album, chosen)
    draw_shapes(album)
    draw_scenes(album, chosen)
    draw_held_out(args.out / "held_out", held_out)
    check_prompts(album, all_drawn=args.concepts is None)
    # The same tokenizer, however few of the concepts are drawn.
    vocabulary = [text for concept in ordered for text in (concept.name, concept.alias)]
    vocabulary += concept_list.read_lines("words.txt")
    longest, length = write_init_folder(args.out / "init", album.captions, vocabulary)
    print(f"{len(chosen)} concepts; pictures: {album.counts}")
    print(f"longest caption: '{longest}', {length} tokens")


if __name__ == "__main__":
    main()
