"""Buckets and crops of 200 picture sizes under four settings, by the rule that the documentation of
kohya's sd-scripts gives: data/aspect_buckets.json. Needs nothing but Python; the rule is written
down here once more, apart from the one in C++.

The rule: an area A = W * H and a step s. For every width from the least to the most in steps the
height is the largest multiple of the step with width * height <= A, at most the longest side. It
counts when it is not below the least; so does the size on its side. The square of that area, rounded
down to the step, comes on top. A picture whose size is in the list keeps it; others take the size
with the smallest difference of width / height. They are scaled until the size is covered, sides
rounded as int(x + 0.5), and the centre is cut out, half of an odd rest rounded down. Without
upscaling the list does not count: pictures of more than A pixels are shrunk to about A, one side a
multiple of the step, and both sides of what remains are rounded down to the step.
"""

import json
import pathlib
import random


def sizes_of(resolution, least, most, step):
    area = resolution[0] * resolution[1]
    square = int(area**0.5) // step * step
    found = {(square, square)}
    for width in range(least, most + 1, step):
        height = min(most, area // width // step * step)
        if height >= least:
            found |= {(width, height), (height, width)}
    return sorted(found)


def half_up(x):
    return int(x + 0.5)


def to_step(x, step):
    return half_up(x) // step * step


def shrunk(width, height, area, step):
    aspect = width / height
    wide = (area * aspect) ** 0.5
    tall = area / wide
    fixed_width = to_step(wide, step)
    fixed_height = to_step(tall, step)
    by_width = fixed_width / to_step(fixed_width / aspect, step)
    by_height = to_step(fixed_height * aspect, step) / fixed_height
    if abs(by_width - aspect) < abs(by_height - aspect):
        return fixed_width, half_up(fixed_width / aspect)
    return half_up(fixed_height * aspect), fixed_height


def place(size, setting):
    width, height = size
    step = setting["step"]
    if setting["no_upscale"]:
        area = setting["resolution"][0] * setting["resolution"][1]
        scaled = shrunk(width, height, area, step) if width * height > area else size
        bucket = tuple(side // step * step for side in scaled)
    else:
        sizes = sizes_of(setting["resolution"], setting["least"], setting["most"], step)
        aspect = width / height
        bucket = size if size in sizes else min(sizes, key=lambda s: abs(s[0] / s[1] - aspect))
        wider = aspect > bucket[0] / bucket[1]
        factor = bucket[1] / height if wider else bucket[0] / width
        scaled = half_up(width * factor), half_up(height * factor)
    left, top = ((scaled[i] - bucket[i]) // 2 for i in (0, 1))
    return [*size, *bucket, *scaled, left, top]


def setting(resolution, least, most, step, no_upscale=False):
    return {"resolution": resolution, "least": least, "most": most, "step": step,
            "no_upscale": no_upscale}


def main():
    numbers = random.Random(23)
    sizes = [(512, 512), (1024, 1024), (1920, 1080), (1080, 1920), (832, 1216), (333, 1000)]
    while len(sizes) < 200:
        sizes.append((numbers.randint(128, 4000), numbers.randint(128, 4000)))
    settings = [setting([512, 512], 256, 1024, 64), setting([1024, 1024], 256, 1024, 64),
                setting([1024, 1024], 512, 2048, 32), setting([768, 512], 256, 1024, 64, True)]
    rows = []
    for one in settings:
        lists = [] if one["no_upscale"] else sizes_of(
            one["resolution"], one["least"], one["most"], one["step"])
        rows.append({**one, "sizes": lists, "places": [place(size, one) for size in sizes]})
    target = pathlib.Path(__file__).parent / "data" / "aspect_buckets.json"
    text = json.dumps(rows, separators=(",", ":"))
    target.write_text(text.replace('],[', '],\n[') + "\n")


if __name__ == "__main__":
    main()
