#!/usr/bin/env python3
"""Writes the seed files of fuzz/corpus/safetensors: small, each with another feature of the format.

    fuzz/make_corpus.py [FOLDER]
"""
import json
import pathlib
import struct
import sys

BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16,
    "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
    "C64": 64,
}


def image(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return struct.pack("<Q", len(text)) + text + data


def tensors(*rows, metadata=None, pad=False) -> bytes:
    """A valid file of (name, dtype, shape) rows."""
    header, end = {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, dtype, shape in rows:
        bits = BITS[dtype]
        for extent in shape:
            bits *= extent
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + bits // 8]}
        end += bits // 8
    text = json.dumps(header, separators=(",", ":"))
    if pad:
        text += " " * (-len(text) % 8)
    return image(text, bytes(i % 251 for i in range(end)))


def entry(dtype='"F32"', shape="[2]", offsets="[0,8]") -> str:
    return '{"dtype":%s,"shape":%s,"data_offsets":%s}' % (dtype, shape, offsets)


def one(**fields) -> bytes:
    return image('{"a":%s}' % entry(**fields), bytes(8))


def good_files():
    for dtype in BITS:
        yield "dtype_" + dtype, tensors(("w", dtype, [2, 4]))
    yield "no_tensors", image("{}")
    yield "scalar", tensors(("s", "F32", []))
    yield "empty_tensors", tensors(("a", "F32", [0]), ("b", "F16", [3, 0, 2]), ("c", "U8", [1]))
    yield "padded", tensors(("a", "F32", [2]), pad=True)
    yield "leading_space", image(' {"a":%s}' % entry(), bytes(8))
    yield "metadata", tensors(("a", "U8", [1]), metadata={"format": "pt", "": "", "k": "\u20ac\n"})
    yield "metadata_only", image('{"__metadata__":{"k":"v"}}')
    yield "metadata_null", image('{"__metadata__":null}')
    yield "any_order", image('{"b":%s,"a":%s}' % (entry(offsets="[8,16]"), entry()), bytes(16))
    yield "unknown_field", image('{"a":{"x":[1,{"y":null}],%s}' % entry()[1:], bytes(8))
    yield "many_dimensions", tensors(("a", "U8", [1] * 64))
    yield "names", tensors(*[(name, "U8", [1]) for name in
                             ("../x", "a\nb", "", "\u20ac", "\U0001f600", "__METADATA__")])
    yield "lora", tensors(*[("unet.to_%s.lora_%s.weight" % (layer, part), "F16", shape)
                            for layer in "qkv" for part, shape in (("up", [4, 2]), ("down", [2, 4]))])
    text = '{"a":%s}' % entry()
    yield "length_like_a_pickle", image(text.ljust(640), bytes(8))
    yield "length_like_html", image(text.ljust(60), bytes(8))


def bad_files():
    for name, shape in {"negative": "[-2]", "float": "[2.0]", "nested": "[[2]]", "number": "2",
                        "overflow": "[2,18446744073709551614]", "overflow_2": "[2,9223372036854775807]",
                        "wrap_bits": "[2305843009213693952]", "zero_last": "[9223372036854775807,2,0]",
                        "dimensions": "[2" + ",1" * 70 + "]"}.items():
        yield "shape_" + name, one(shape=shape)
    for name, offsets in {"negative": "[-1,7]", "fraction": "[0,1.5]", "huge": "[0,1e20]",
                          "three": "[0,8,8]", "one": "[0]", "reversed": "[8,0]", "small": "[0,4]",
                          "large": "[0,12]", "hole": "[4,12]", "null": "null"}.items():
        yield "offsets_" + name, one(offsets=offsets)
    for name, dtype in {"unknown": '"F33"', "lower": '"f32"', "number": "32", "map": '{"F32":null}'}.items():
        yield "dtype_bad_" + name, one(dtype=dtype)
    yield "sub_byte", one(dtype='"F4"', shape="[3]", offsets="[0,1]")
    yield "list_entry", image('{"a":["F32",[2],[0,8]]}', bytes(8))
    yield "duplicate", image('{"a":%s,"\\u0061":%s}' % (entry(), entry(offsets="[8,16]")), bytes(16))
    yield "duplicate_field", image('{"a":{"dtype":"F16",%s}' % entry()[1:], bytes(8))
    yield "overlap", image('{"a":%s,"b":%s}' % (entry(), entry(offsets="[4,12]")), bytes(12))
    yield "metadata_number", image('{"__metadata__":{"k":1}}')
    yield "byte_order_mark", image("\ufeff{}")
    yield "nul", image("{}\0")
    yield "not_json", image("hello")
    yield "array", image("[]")
    yield "deep", image("[" * 200)
    yield "deep_field", image('{"a":{"x":%s,%s}' % ("[" * 70 + "]" * 70, entry()[1:]), bytes(8))
    yield "cut", tensors(("a", "F32", [2]))[:-2]
    yield "extra", tensors(("a", "F32", [2])) + bytes(34)
    yield "length_max", b"\xff" * 8 + b"{}"
    yield "length_short", b"\x02"
    yield "invalid_utf8", struct.pack("<Q", 4) + b'"\xc0\xaf"'
    yield "lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    yield "html", b"<!DOCTYPE html><html></html>"
    yield "pickle", b"\x80\x02}q\x00(X\x01\x00\x00\x00a"
    yield "zip", b"PK\x03\x04\x00\x00\x08\x08\x00\x00"
    yield "gguf", b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00"


def main():
    default = pathlib.Path(__file__).parent / "corpus" / "safetensors"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in [*good_files(), *bad_files()]:
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
