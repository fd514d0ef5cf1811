"""Goldens of the block types: blocks.tsv, what the PyPI package gguf 0.19 reads and writes (NumPy 2.4).

    /opt/geul-py/bin/python tests/golden/make_blocks.py

A line per case: "decode" or "encode", the type, hex of the blocks, hex of their values as little-endian float32. decode:
what dequantize() makes of random bytes, with scales that are ordinary, negative, zero, the largest, the smallest,
infinite. encode: what quantize() makes of values, for the types it writes.
"""
import os

import gguf
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
# Byte offsets of the float16 scales in a block.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}
WRITTEN = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
SHORT = [0.013, -0.21, 0.0, 65504.0, 2.0**-24, np.inf]
LONG = [0.013, -(2.0**-24), 65504.0]  # of 256 values


def random_blocks(rng, name, scales):
    """One block of random bytes for each scale; what is a second scale in the block gets the next value."""
    _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    blocks = rng.integers(0, 256, (len(scales), size), dtype=np.uint8)
    for i, block in enumerate(blocks):
        for k, at in enumerate(SCALES[name]):
            block[at:at + 2] = np.array([scales[(i + k) % len(scales)]], np.float16).view(np.uint8)
    return blocks


def values(rng):
    """Rows of 32: Gaussian of several sizes, a grid with many ties, one-sided, constant, zero."""
    rows = [rng.standard_normal(32) * s for s in (1, 1, 0.02, 1e-6, 3000)]
    rows += [rng.integers(-40, 41, 32) / 8, rng.integers(-15, 16, 32) / 2]
    rows += [np.abs(rng.standard_normal(32)) + 1, -np.abs(rng.standard_normal(32)) - 1, np.full(32, -2.5), np.zeros(32)]
    return np.array(rows, dtype="<f4")


def main():
    rng = np.random.default_rng(20)
    lines = []
    for name in SCALES:
        kind = gguf.GGMLQuantizationType[name]
        long = gguf.GGML_QUANT_SIZES[kind][0] == 256
        blocks = random_blocks(rng, name, LONG if long else SHORT)
        with np.errstate(invalid="ignore"):
            x = gguf.quants.dequantize(blocks, kind).astype("<f4")
        lines.append(f"decode\t{name.lower()}\t{blocks.tobytes().hex()}\t{x.tobytes().hex()}\n")
    x = values(rng)
    for name in WRITTEN:
        blocks = gguf.quants.quantize(x, gguf.GGMLQuantizationType[name])
        lines.append(f"encode\t{name.lower()}\t{blocks.tobytes().hex()}\t{x.tobytes().hex()}\n")
    with open(os.path.join(HERE, "blocks.tsv"), "w", encoding="ascii") as f:
        f.writelines(lines)


if __name__ == "__main__":
    main()
