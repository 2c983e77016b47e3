"""Golden numbers of metrics from the published implementations.

    python make_metrics.py            writes data/metrics.json

FID and KID through clean-fid's functions, edges through OpenCV, the Vendi score through vendi-score;
CMMD and segmentation scores by their papers' formulas in NumPy. Inputs are by formula.py.
Pinned: numpy 2.4.6, scipy 1.17.1, opencv-python-headless 5.0.0.93, clean-fid 0.1.35, vendi-score 0.0.3.
"""
import json
import pathlib

import cv2
import numpy
from cleanfid import fid
from vendi_score import vendi

import formula

DATA = pathlib.Path(__file__).parent / "data"


def rows(name, count, width):
    return formula.uniform(name, (count, width)).numpy().astype(numpy.float64)


def picture(name, side):
    """Soft shapes: a low-resolution formula picture, enlarged."""
    small = (formula.uniform(name, (6, 6, 3)).numpy() * 0.5 + 0.5) * 255
    return cv2.resize(small.astype(numpy.uint8), (side, side), interpolation=cv2.INTER_NEAREST)


def cmmd(x, y):
    x, y = (rows / numpy.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
    gamma = 1 / (2 * 10**2)

    def kernel(a, b):
        squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
        return numpy.exp(-gamma * squares).mean()

    return 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))


def segmentation(truth, found, classes, ignored=255):
    counted = truth != ignored
    matrix = numpy.bincount(classes * truth[counted] + found[counted], minlength=classes**2).reshape(classes, classes)
    hit, true, said = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    union = true + said - hit
    with numpy.errstate(invalid="ignore"):
        return {"mIoU": numpy.nanmean(hit / numpy.where(union > 0, union, numpy.nan)),
                "mAcc": numpy.nanmean(hit / numpy.where(true > 0, true, numpy.nan)),
                "aAcc": hit.sum() / true.sum()}


def main():
    x, y = rows("metrics.x", 60, 8), rows("metrics.y", 50, 8) * 0.8 + 0.3
    out = {"fid": fid.frechet_distance(x.mean(0), numpy.cov(x, rowvar=False), y.mean(0), numpy.cov(y, rowvar=False)),
           # One subset of all rows: random order does not matter then.
           "kid": fid.kernel_distance(x[:50], y, num_subsets=1, max_subset_size=1000),
           "cmmd": cmmd(x, y),
           "vendi": vendi.score_dual(x / numpy.linalg.norm(x, axis=1, keepdims=True)),
           "cosine": float((x / numpy.linalg.norm(x, axis=1, keepdims=True)
                            @ (y / numpy.linalg.norm(y, axis=1, keepdims=True)).T).mean())}
    a, b = (cv2.Canny(picture(name, 96), 100, 200) > 0 for name in ("metrics.a", "metrics.b"))
    both, either = (a & b).sum(), (a | b).sum()
    out["canny"] = {"pixels": [int(a.sum()), int(b.sum())], "iou": both / either,
                    "f1": 2 * both / (a.sum() + b.sum())}
    labels = [(formula.uniform(name, (4, 30, 20)).numpy() * 0.5 + 0.5) * 5 // 1 for name in ("metrics.t", "metrics.f")]
    truth, found = (label.astype(numpy.int64).clip(0, 4) for label in labels)
    truth[0, :3] = 255
    out["segmentation"] = segmentation(truth.ravel(), found.ravel(), 7)
    (DATA / "metrics.json").write_text(json.dumps(out, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
