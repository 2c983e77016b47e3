"""Weights and inputs by formula, so that golden files hold only results.

tests/golden/formula.h is the same formula in C++: element i of the tensor `name` is a number in
[-1, 1) from splitmix64 of (crc32(name) << 32) + i, bit for bit the same in both languages.
"""
import zlib

import numpy as np
import torch


def uniform(name, shape):
    """Numbers in [-1, 1), float32, exact multiples of 2^-23."""
    count = int(np.prod(shape, dtype=np.int64))
    with np.errstate(over="ignore"):
        z = (np.uint64(zlib.crc32(name.encode())) << np.uint64(32)) + np.arange(count, dtype=np.uint64)
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    values = (z >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def weight(name, shape):
    """A parameter: norms near 1, biases near 0, matrices with unit gain (variance 1 / fan-in)."""
    values = uniform(name, shape)
    if len(shape) == 1:
        return 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
    fan_in = int(np.prod(shape[1:]))
    return (values.double() * (3.0 / fan_in) ** 0.5).float()


def fill(module, rename=lambda name: name):
    """Sets every parameter of a module by formula; returns {file name: tensor}."""
    written = {}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            value = weight(rename(name), tuple(parameter.shape))
            parameter.copy_(value)
            written[rename(name)] = value
    return written
