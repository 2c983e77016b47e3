"""Golden weights in narrow storage, from the published formulas by enumeration.

    python make_weight_storage.py    writes data/weight_storage.json and data/weight_storage.safetensors

nf4: QLoRA (Dettmers et al. 2023), block-wise as bitsandbytes' quantize_4bit with blocks of 64 and
without double quantisation: the level nearest to w / absmax, two codes a byte, the first in the
upper half. int8: LLM.int8()'s row-wise absmax, round to nearest even. fp8: the nearest e4m3 number
(OCP's "fn" form: no infinity, largest 448), ties to even. Pinned: numpy 2.x, torch 2.15.0.
"""
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file

import formula

DATA = pathlib.Path(__file__).parent / "data"
NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
                -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
                0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
                0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], dtype=np.float32)
# Rows that are blocks, rows that are not, a kernel, and one that ends in half a byte.
SHAPES = {"matrix": [6, 128], "odd": [5, 7], "kernel": [4, 6, 3, 3], "long": [3, 1000]}


def weights(name):
    values = formula.uniform(name, SHAPES[name]).numpy()
    values = values**3 * np.linspace(0.1, 2.0, SHAPES[name][0]).reshape([-1] + [1] * (values.ndim - 1))
    values = values.astype(np.float32)
    values[1] = 0.0
    return values


def nf4(w):
    flat = w.reshape(-1)
    codes, values, scales = [], [], []
    for first in range(0, flat.size, 64):
        block = flat[first:first + 64]
        scale = np.abs(block).max()
        scaled = block / (scale if scale > 0 else np.float32(1))
        nearest = np.abs(scaled[:, None].astype(np.float64) - NF4[None].astype(np.float64)).argmin(1)
        codes += list(nearest)
        values += list(NF4[nearest] * scale)
        scales.append(scale)
    codes += [7] * (-len(codes) % 64)  # zeros
    packed = [(codes[i] << 4) | codes[i + 1] for i in range(0, len(codes), 2)]
    return np.array(packed, np.uint8), np.array(scales, np.float32), np.array(values, np.float32)


def rows(w):
    flat = w.reshape(w.shape[0], -1)
    return flat, np.abs(flat).max(1, keepdims=True)


def int8(w):
    flat, largest = rows(w)
    scales = largest / np.float32(127)
    codes = np.rint(flat / np.where(scales > 0, scales, np.float32(1))).clip(-127, 127)
    return codes.astype(np.int8), scales, codes.astype(np.float32) * scales


def e4m3():
    numbers = []
    for code in range(127):  # 127 is not a number
        exponent, mantissa = code >> 3, code & 7
        numbers.append(mantissa * 2.0**-9 if exponent == 0 else (1 + mantissa / 8) * 2.0**(exponent - 7))
    return np.array(numbers)


def fp8(w):
    flat, largest = rows(w)
    scales = largest / np.float32(448)
    scaled = (flat / np.where(scales > 0, scales, np.float32(1))).astype(np.float64).clip(-448, 448)
    distance = np.abs(np.abs(scaled)[..., None] - e4m3())
    # Ties to the even code: odd ones are a little further away.
    code = (distance + 1e-12 * (np.arange(127) % 2)).argmin(-1)
    values = np.where(np.signbit(scaled), -1, 1) * e4m3()[code]
    return (code | np.where(np.signbit(scaled), 128, 0)).astype(np.uint8), scales, values.astype(np.float32) * scales


def main():
    tensors = {}
    for name in SHAPES:
        w = weights(name)
        tensors[f"{name}.weight"] = w
        for storage, made in (("nf4", nf4(w)), ("int8", int8(w)), ("fp8", fp8(w))):
            codes, scales, values = made
            tensors[f"{name}.{storage}.codes"] = codes
            tensors[f"{name}.{storage}.scales"] = scales.reshape(-1)
            tensors[f"{name}.{storage}.values"] = values.reshape(w.shape)
    save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()},
              DATA / "weight_storage.safetensors")
    (DATA / "weight_storage.json").write_text(json.dumps({"weights": list(SHAPES)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
