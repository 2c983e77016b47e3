#!/usr/bin/env python3
"""Finds the 68 landmarks of the first face in every picture of a folder.

    pip install face-alignment
    examples/paper/find_landmarks.py PICTURES LANDMARKS

Writes LANDMARKS/name.json, [[x, y], ...] in the picture's pixels, an empty list where there is no
face: the form of `ringlet eval control --find-with`. It is the detector of OFT's protocol
(Bulat & Tzimiropoulos 2017); its weights are downloaded by the package. Not run where this was written.
"""
import json
import pathlib
import sys

import face_alignment
import numpy
import torch
from PIL import Image

EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp"}


def main(pictures, landmarks):
    detector = face_alignment.FaceAlignment(
        face_alignment.LandmarksType.TWO_D, device="cuda" if torch.cuda.is_available() else "cpu"
    )
    landmarks.mkdir(parents=True, exist_ok=True)
    for picture in sorted(pictures.iterdir()):
        if picture.suffix.lower() not in EXTENSIONS:
            continue
        faces = detector.get_landmarks(numpy.asarray(Image.open(picture).convert("RGB")))
        points = faces[0].tolist() if faces else []
        (landmarks / f"{picture.stem}.json").write_text(json.dumps(points))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
