"""Drawing for the starter model's training pictures: emoji, shapes and how they are put together."""

import colorsys
import functools
import math

import numpy
from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
FONT_SIZE, STRIKE = 109, (136, 128)  # the font's only bitmap size

COLOURS = {
    "red": (216, 58, 52), "orange": (242, 140, 40), "yellow": (250, 214, 70),
    "green": (76, 168, 82), "blue": (62, 118, 214), "purple": (142, 80, 184),
    "grey": (150, 150, 150), "black": (22, 22, 22)}
WHITE = (255, 255, 255)


@functools.lru_cache(maxsize=None)
def glyph(emoji):
    """The emoji, cut to its outline, as RGBA with clean edges.

    Drawing a colour glyph on a transparent canvas spoils its edges, so it is drawn on black and
    on white: alpha is what the difference says.
    """
    font = ImageFont.truetype(FONT, FONT_SIZE)
    drawn = []
    for background in (0, 255):
        canvas = Image.new("RGB", (STRIKE[0] + 24, STRIKE[1] + 24), (background,) * 3)
        ImageDraw.Draw(canvas).text((12, 12), emoji, font=font, embedded_color=True)
        drawn.append(numpy.asarray(canvas, dtype=numpy.float64))
    on_black, on_white = drawn
    alpha = numpy.clip(1 - (on_white - on_black).mean(axis=2) / 255, 0, 1)
    colour = on_black / numpy.maximum(alpha, 1 / 255)[..., None]
    pixels = numpy.dstack([numpy.clip(colour, 0, 255), alpha * 255])
    picture = Image.fromarray(numpy.rint(pixels).astype(numpy.uint8), "RGBA")
    box = picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    if box is None:
        raise SystemExit(f"the font has no picture for U+{ord(emoji):04X}")
    return picture.crop(box)


def fit(picture, width, height):
    """Scaled to touch the box."""
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def on_background(picture, size, background=WHITE, share=0.8):
    """The picture in the middle of a square, filling this share of it."""
    canvas = Image.new("RGB", (size, size), background)
    scaled = fit(picture, size * share, size * share)
    place = ((size - scaled.width) // 2, (size - scaled.height) // 2)
    canvas.paste(scaled, place, scaled)
    return canvas


def visible_colours(picture):
    """The names of the colours before which most of the picture can be told."""
    pixels = numpy.asarray(picture, dtype=numpy.float64)
    solid = pixels[pixels[..., 3] > 128][:, :3]
    return [name for name, colour in COLOURS.items()
            if (numpy.linalg.norm(solid - colour, axis=1) < 90).mean() < 0.3]


def hsv(picture):
    """Hue, saturation, value and alpha, each 0..255."""
    bands = [*picture.convert("RGB").convert("HSV").split(), picture.getchannel("A")]
    return [numpy.asarray(band).astype(float) for band in bands]


def main_hue(picture):
    """The most frequent hue among the coloured pixels, 0..255."""
    hue, saturation, _, alpha = hsv(picture)
    coloured = hue[(alpha > 128) & (saturation > 60)].astype(int)
    counts = numpy.bincount(coloured, minlength=256)
    return int(sum(numpy.roll(counts, shift) for shift in range(-8, 9)).argmax())


def hue_of(name):
    return 256 * colorsys.rgb_to_hsv(*COLOURS[name])[0]


def recoloured(picture, name):
    """The picture with its main colour turned into the named one, its light and shade kept."""
    hue, saturation, value, alpha = hsv(picture)
    distance = (hue - main_hue(picture) + 128) % 256 - 128
    near = (abs(distance) <= 24) & (saturation > 20)
    solid = near & (alpha > 128)
    _, wanted_saturation, wanted_value = colorsys.rgb_to_hsv(*(c / 255 for c in COLOURS[name]))
    bands = ((distance / 3 + hue_of(name)) % 256,
             saturation * (255 * wanted_saturation / numpy.median(saturation[solid])),
             value * (255 * wanted_value / numpy.median(value[solid])))
    changed = [numpy.clip(numpy.where(near, new, old), 0, 255)
               for new, old in zip(bands, (hue, saturation, value))]
    result = Image.merge("HSV", [Image.fromarray(band.astype(numpy.uint8)) for band in changed])
    result = result.convert("RGB")
    result.putalpha(picture.getchannel("A"))
    return result


def shape(kind, colour):
    """A flat shape, drawn large and scaled down for smooth edges."""
    side = 512
    canvas = Image.new("RGBA", (side, side), colour + (0,))
    draw, fill = ImageDraw.Draw(canvas), colour + (255,)
    if kind == "circle":
        draw.ellipse((0, 0, side - 1, side - 1), fill)
    elif kind == "square":
        draw.rectangle((32, 32, side - 33, side - 33), fill)
    elif kind == "triangle":
        draw.polygon([(side / 2, 16), (side - 1, side - 48), (0, side - 48)], fill)
    elif kind == "star":
        points = [(side / 2 + radius * math.sin(math.pi * corner / 5),
                   side / 2 - radius * math.cos(math.pi * corner / 5))
                  for corner in range(10) for radius in [side / 2 if corner % 2 == 0 else side / 5]]
        draw.polygon(points, fill)
    else:  # heart: 16 sin^3 t, 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t
        steps = [math.tau * step / 360 for step in range(360)]
        draw.polygon([(side / 2 + side / 34 * 16 * math.sin(t) ** 3,
                       side / 2 - 32 - side / 34 * (13 * math.cos(t) - 5 * math.cos(2 * t)
                                                    - 2 * math.cos(3 * t) - math.cos(4 * t)))
                      for t in steps], fill)
    return canvas.crop(canvas.getchannel("A").getbbox())


def side_by_side(left, right):
    canvas = Image.new("RGBA", (256, 160), (255, 255, 255, 0))
    for picture, middle in ((fit(left, 118, 118), 62), (fit(right, 118, 118), 194)):
        canvas.paste(picture, (middle - picture.width // 2, 80 - picture.height // 2), picture)
    return canvas


def wearing(head, hat):
    """The hat on the head, between the ears: where the middle of the head begins."""
    head, hat = fit(head, 128, 128), fit(hat, 84, 60)
    middle = numpy.asarray(head.getchannel("A"))[:, head.width // 2 - 6:head.width // 2 + 6]
    top = int((middle > 128).any(axis=1).argmax())
    rise = max(0, 3 * hat.height // 4 - top)  # how far the hat stands out above
    width = max(head.width, hat.width)
    canvas = Image.new("RGBA", (width, head.height + rise), (255, 255, 255, 0))
    canvas.alpha_composite(head, ((width - head.width) // 2, rise))
    canvas.alpha_composite(hat, ((width - hat.width) // 2, rise + top - 3 * hat.height // 4))
    return canvas
