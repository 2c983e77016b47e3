"""Small image files of every kind and what they decode to, and label maps with their numbers.

    python make_images.py            writes data/images/*, data/images.safetensors, data/labels/*, data/labels.json

Pinned: pillow 13.0.0, numpy 2.4.6.
"""
import json
import pathlib

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

DATA = pathlib.Path(__file__).parent / "data"
FOLDER = DATA / "images"
WIDTH, HEIGHT = 20, 14


def picture():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 12, y * 18, (x + y) * 7], -1).clip(0, 255).astype(np.uint8)


def over_white(image):
    """Alpha over white, rounded to nearest."""
    rgba = np.asarray(image.convert("RGBA")).astype(np.int64)
    alpha = rgba[..., 3:]
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def label_maps():
    """Grey and palette PNGs of every width; Pillow's own numbers are the palette's indices."""
    folder = DATA / "labels"
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {}

    def add(name, values, image, **options):
        image.save(folder / name, **options)
        numbers[name] = values.tolist()

    for bits in (1, 2, 4, 8):
        colours = 2**bits
        values = (np.arange(5 * 3).reshape(3, 5) * 7 % colours).astype(np.uint8)
        values[-1, -1] = colours - 1
        palette = Image.fromarray(values, "P")
        palette.putpalette([(37 * i + 5 * channel) % 256 for i in range(colours) for channel in range(3)])
        add(f"palette{bits}.png", values, palette, bits=bits)
    add("palette8_alpha.png", values, palette, bits=8, transparency=3)
    add("grey1.png", values % 2, Image.fromarray((values % 2 * 255).astype(np.uint8)).convert("1"))
    add("grey8.png", values, Image.fromarray(values))
    wide = (np.arange(15).reshape(3, 5) * 4681).astype(np.uint16)
    add("grey16.png", wide, Image.fromarray(wide))
    (DATA / "labels.json").write_text(json.dumps(numbers) + "\n")


def main():
    label_maps()
    FOLDER.mkdir(parents=True, exist_ok=True)
    rgb = picture()
    image = Image.fromarray(rgb)
    alpha = Image.fromarray(np.dstack([rgb, rgb[..., 0] * np.uint8(3)]))
    grey = image.convert("L")
    out = {}

    def add(name, picture, expected=None, **options):
        picture.save(FOLDER / name, **options)
        if expected is None:
            expected = np.asarray(ImageOps.exif_transpose(Image.open(FOLDER / name)).convert("RGB"))
        out[name] = torch.from_numpy(np.ascontiguousarray(expected))

    add("rgb.png", image)
    add("grey.png", grey)
    add("one_bit.png", grey.convert("1"))
    add("palette.png", image.convert("P", palette=Image.Palette.ADAPTIVE, colors=16))
    add("alpha.png", alpha, over_white(alpha))
    grey_alpha = Image.merge("LA", (grey, alpha.getchannel("A")))
    add("grey_alpha.png", grey_alpha, over_white(grey_alpha))
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    palette.info["transparency"] = 3
    add("palette_alpha.png", palette, over_white(palette), transparency=3)
    wide = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 229 % 65536).astype(np.uint16)
    narrow = np.rint(wide * (255.0 / 65535.0)).astype(np.uint8)
    add("grey16.png", Image.fromarray(wide), np.dstack([narrow] * 3))
    # One value or colour that is transparent.
    key = int(np.asarray(grey)[5, 7])
    grey.info["transparency"] = key
    add("grey_key.png", grey, over_white(grey), transparency=key)
    del grey.info["transparency"]
    add("grey16_key.png", Image.fromarray(wide), np.where(wide == wide[3, 4], 255, narrow)[..., None].repeat(3, -1),
        transparency=int(wide[3, 4]))
    image.info["transparency"] = tuple(int(value) for value in rgb[2, 9])
    add("rgb_key.png", image, over_white(image), transparency=image.info["transparency"])
    del image.info["transparency"]
    # The first frame of animations.
    frames = [alpha, Image.fromarray(np.asarray(alpha)[::-1])]
    add("animated.png", alpha, over_white(alpha), save_all=True, append_images=frames[1:], duration=50)
    add("animated.webp", alpha, over_white(alpha), save_all=True, append_images=frames[1:], duration=50, lossless=True,
        exact=True)
    solid = [frame.convert("RGB") for frame in frames]
    add("lossy_animated.webp", solid[0], save_all=True, append_images=solid[1:], duration=50, quality=90)
    add("rgb.bmp", image)
    add("grey.bmp", grey)
    add("one_bit.bmp", grey.convert("1"))
    add("palette.bmp", image.convert("P", palette=Image.Palette.ADAPTIVE, colors=16))
    add("rgb.jpg", image, quality=92, subsampling=0)
    add("grey.jpg", grey, quality=92)
    add("progressive.jpg", image, quality=92, progressive=True, subsampling=0)
    add("cmyk.jpg", image.convert("CMYK"), quality=95)
    add("lossless.webp", image, lossless=True)
    add("alpha.webp", alpha, over_white(alpha), lossless=True, exact=True)
    add("lossy.webp", image, quality=90)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        add(f"exif{orientation}.png", image, exif=exif)
        if orientation in (3, 6, 8):
            add(f"exif{orientation}.jpg", image, exif=exif, quality=92, subsampling=0)
            add(f"exif{orientation}.webp", image, exif=exif, lossless=True)
    save_file(out, DATA / "images.safetensors")
    print(len(out), "images")


if __name__ == "__main__":
    main()
