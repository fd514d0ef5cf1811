#!/usr/bin/env python3
"""Write torch_forms/: one tiny model in the forms that PyTorch has saved checkpoints in over the years.

    /opt/geul-py/bin/python tests/golden/make_torch_forms.py        torch 2.15.0, transformers 5.24.0, safetensors 0.8.0

Every .bin holds the same float32 values as model.safetensors (torch.load() is asked here), logits.npy is what transformers
computes with them. dtypes.bin and dtypes.safetensors hold every code of the 8-bit floats and some float64 values, and in
NAME.f32 what torch makes of each.
"""
import io
import os
import struct
from collections import OrderedDict

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_forms")
EIGHT_BITS = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")


def make_model():
    torch.manual_seed(7)
    config = GPTNeoXConfig(vocab_size=24, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                           max_position_embeddings=32, hidden_act="gelu", rotary_pct=0.5, bos_token_id=0, eos_token_id=0,
                           attn_implementation="eager", dtype="float32")
    model = GPTNeoXForCausalLM(config).float().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.5)
    model.save_pretrained(OUT)
    os.remove(os.path.join(OUT, "generation_config.json"))
    with torch.no_grad():
        logits = model(torch.tensor([[1, 5, 9, 2, 23, 7]])).logits[0]
    np.save(os.path.join(OUT, "logits.npy"), logits.numpy().astype("<f4"))
    return load_file(os.path.join(OUT, "model.safetensors"))


def strided(t, i):
    """t's values in an awkward place: columns of a wider matrix, a transposed one, rows from the end of a storage."""
    if t.dim() == 1:
        wide = torch.zeros(3 * len(t) + 2)
        wide[2::3] = t
        return wide[2::3]
    if i % 3 == 0:
        return t.t().contiguous().t()
    wide = torch.randn(t.shape[0] + 2, 2 * t.shape[1] + 1)
    place = wide[2:, 1::2] if i % 3 == 1 else wide[1:-1, :t.shape[1]]
    place.copy_(t)
    return place


class Pickler:
    """A pickle of protocol 2 as Python 2 wrote it: byte strings, an OrderedDict made of pairs."""

    def __init__(self):
        self.b = bytearray(b"\x80\x02")

    def text(self, s):
        s = s.encode()
        self.b += (b"U" + bytes([len(s)]) if len(s) < 256 else b"T" + struct.pack("<I", len(s))) + s

    def name(self, module, name):
        self.b += f"c{module}\n{name}\n".encode()

    def number(self, n):
        self.b += b"K" + bytes([n]) if n < 256 else b"M" + struct.pack("<H", n) if n < 65536 else b"J" + struct.pack("<i", n)

    def numbers(self, v):
        self.b += b"("
        for n in v:
            self.number(n)
        self.b += b"t"


def python2(state, views):
    """The older form by hand. views: all tensors are views of one storage, as torch 0.4 and before saved them."""
    order = list(state.items())
    starts = np.cumsum([0] + [t.numel() for _, t in order])
    p = Pickler()
    p.name("collections", "OrderedDict")
    p.b += b"]("
    for i, (name, t) in enumerate(order):
        p.b += b"]("
        p.text(name)
        p.name("torch._utils", "_rebuild_tensor" if views else "_rebuild_tensor_v2")
        p.b += b"(("
        p.text("storage")
        p.name("torch", "FloatStorage")
        p.text("whole" if views else f"key{i}")
        p.text("cpu")
        p.number(int(starts[-1]) if views else t.numel())
        if views:
            p.b += b"("
            p.text(f"view{i}")
            p.number(int(starts[i]))
            p.number(t.numel())
            p.b += b"t"
        else:
            p.b += b"N"
        p.b += b"tQ"
        p.number(0)
        p.numbers(t.shape)
        p.numbers(t.stride())
        if not views:
            p.b += b"\x89"
            p.name("collections", "OrderedDict")
            p.b += b"]\x85R"
        p.b += b"tRe"
    p.b += b"e\x85R."
    keys = Pickler()
    keys.b += b"]("
    for key in ["whole"] if views else sorted(f"key{i}" for i in range(len(order))):
        keys.text(key)
    keys.b += b"e."
    facts = Pickler()
    facts.b += b"}("
    facts.text("protocol_version")
    facts.number(1001)
    facts.text("little_endian")
    facts.b += b"\x88u."
    out = bytearray(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.") + facts.b + p.b + keys.b
    data = {f"key{i}": t.contiguous().numpy().tobytes() for i, (_, t) in enumerate(order)}
    if views:
        data = {"whole": b"".join(data[f"key{i}"] for i in range(len(order)))}
    for key in sorted(data):
        out += struct.pack("<q", len(data[key]) // 4) + data[key]
    return bytes(out)


def attributes(state):
    """Parameters and tensors with attributes, as Megatron and DeepSpeed leave them."""
    out = OrderedDict()
    for i, (name, t) in enumerate(state.items()):
        out[name] = torch.nn.Parameter(t) if i % 2 else t.clone()
        out[name].partition_dim = i
    out._metadata = OrderedDict([("", {"version": 1})])
    return out


def save(name, value, **how):
    b = io.BytesIO()
    torch.save(value, b, **how)
    put(name, b.getvalue())


def put(name, data):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)


def write_dtypes():
    tensors = {name: torch.arange(256, dtype=torch.uint8).view(getattr(torch, name)) for name in EIGHT_BITS}
    tensors["float64"] = torch.tensor([0.1, -1 / 3, 1e300, 1e-300, 1e-40, 16777217.0, float("nan"), float("inf")],
                                      dtype=torch.float64)
    save("dtypes.bin", tensors)
    save_file({**tensors, **{f"{name}.f32": t.to(torch.float32) for name, t in tensors.items()}},
              os.path.join(OUT, "dtypes.safetensors"))


def main():
    os.makedirs(OUT, exist_ok=True)
    state = make_model()
    legacy = {"_use_new_zipfile_serialization": False}
    awkward = OrderedDict((k, strided(t, i)) for i, (k, t) in enumerate(state.items()))
    save("legacy.bin", OrderedDict(state), **legacy)
    save("legacy_strided.bin", awkward, **legacy)
    save("strided.bin", awkward)
    save("float64.bin", {k: t.double() for k, t in state.items()})
    save("attributes.bin", attributes(state))
    put("python2.bin", python2(state, False))
    put("views.bin", python2(state, True))
    write_dtypes()
    for name in sorted(os.listdir(OUT)):
        if name.endswith(".bin") and name != "dtypes.bin":
            read = torch.load(os.path.join(OUT, name), weights_only=False)
            assert list(read) == list(state), name
            assert all(torch.equal(read[k].float(), t) for k, t in state.items()), name
        print(name, os.path.getsize(os.path.join(OUT, name)))


main()
