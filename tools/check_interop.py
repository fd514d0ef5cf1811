#!/usr/bin/env python3
"""Check geul's files against the other readers and writers of the formats, on every golden:

    tools/check_interop.py [--geul build/geul] [NAME OF A GOLDEN]...

1. convert then export gives a directory that transformers loads with identical logits;
2. the PyPI package gguf reads every key and tensor that geul writes, and its NumPy decoder gives the values that geul's
   export gives, for every type;
3. a file that gguf's writer makes of a golden's tensors runs in geul with the logits of transformers (1e-4 of their
   range), and is exported with every bit in place;
4. random blocks of every quantized type, in a file of gguf's writer, have the values that gguf's decoder gives.

Needs torch, transformers, safetensors, gguf and numpy (the environment of tests/golden/make.py, and gguf).
"""
import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="0")

import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import GPTNeoXForCausalLM

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "golden"))

from make_blocks import SCALES

TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
LAYER = {
    "input_layernorm": "attn_norm", "attention.query_key_value": "attn_qkv", "attention.dense": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down",
}
TOP = {"gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm", "embed_out": "output",
       "lm_head": "output"}
BUFFERS = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
failures = []


def check(ok, what):
    if not ok:
        failures.append(what)
        print("FAILED", what)


def gguf_name(hf):
    """blk.0.attn_qkv.weight for gpt_neox.layers.0.attention.query_key_value.weight."""
    stem, kind = hf.rsplit(".", 1)
    if stem.startswith("gpt_neox.layers."):
        number, part = stem[len("gpt_neox.layers."):].split(".", 1)
        return f"blk.{number}.{LAYER[part]}.{kind}"
    return f"{TOP[stem]}.{kind}"


def part_qkv(x, heads):
    """HF's rows [head][q|k|v][i] as GGUF's [q|k|v][head][i]."""
    rest = x.shape[1:]
    return x.reshape(heads, 3, -1, *rest).swapaxes(0, 1).reshape(-1, *rest)


def weights(folder):
    """The tensors of a directory of safetensors or .bin files, without the old buffers."""
    tensors = {}
    files = sorted(glob.glob(folder + "/model*.safetensors")) or sorted(glob.glob(folder + "/pytorch_model*.bin"))
    for file in files:
        tensors.update(load_file(file) if file.endswith("safetensors") else torch.load(file, weights_only=True))
    return {name: t for name, t in tensors.items() if not name.endswith(BUFFERS)}


def as_gguf(folder, heads):
    """The tensors of a directory under GGUF's names and in its order, float32 NumPy arrays."""
    arrays = {}
    for name, t in weights(folder).items():
        x = t.to(torch.float32).numpy()
        arrays[gguf_name(name)] = part_qkv(x, heads) if "query_key_value" in name else x
    return arrays


def filled(arrays):
    """With what GGUF files have in any case: a tied output as a copy, absent biases as zeros."""
    whole = {"output.weight": arrays["token_embd.weight"], **arrays}
    for name, x in arrays.items():
        if name.endswith((".attn_qkv.weight", ".attn_output.weight")):
            whole.setdefault(name.replace(".weight", ".bias"), np.zeros(len(x), np.float32))
    return whole


def same(a, b):
    return a.shape == b.shape and np.array_equal(a, b)


def run(*argv):
    r = subprocess.run(argv, capture_output=True, text=True)
    check(r.returncode == 0, f"{' '.join(argv)}: {r.stderr.strip()}")
    return r.returncode == 0


@torch.no_grad()
def logits(folder):
    model, info = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                     output_loading_info=True)
    unknown = [k for k in info["unexpected_keys"] if not k.endswith(BUFFERS)]
    check(not info["missing_keys"] and not unknown, f"{folder}: {info}")
    n = min(model.config.vocab_size, 64)
    return model.eval()(input_ids=torch.arange(n)[None]).logits


def check_runs(geul, name, file, folder, tmp):
    """geul's own logits for the file, compared with transformers' for the directory."""
    theirs = logits(folder)[0].numpy()
    out = f"{tmp}/{name}.npy"
    ids = " ".join(str(i) for i in range(len(theirs)))
    if run(geul, "logits", "-m", file, "--ids", ids, "-o", out):
        mine = np.load(out)
        worst = float(np.abs(mine - theirs).max() / (theirs.max() - theirs.min()))
        print(f"  geul's logits differ by {worst:.1e} of their range")
        check(worst <= 1e-4, f"{name}: geul's logits differ by {worst} of their range")


def check_transformers(geul, name, folder, tmp):
    """convert and export in the type of the golden's own weights."""
    dtype = next(iter(weights(folder).values())).dtype
    kind = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]
    file, back = f"{tmp}/{name}.gguf", f"{tmp}/{name}-back"
    if not (run(geul, "convert", folder, "-o", file, "--type", kind) and run(geul, "export", file, back)):
        return
    check(torch.equal(logits(folder), logits(back)), f"{name}: logits after convert and export")
    a, b = as_gguf(folder, 1), as_gguf(back, 1)
    check(a.keys() == b.keys() and all(same(a[k], b[k]) for k in a), f"{name}: tensors after convert and export")


def block_errors(difference):
    """Squared error of every 32 values."""
    return np.square(difference.astype(np.float64)).reshape(-1, 32).sum(axis=1)


def check_gguf_reader(geul, name, folder, heads, tmp):
    """Every type as the gguf package reads it, compared with geul's export."""
    source = filled(as_gguf(folder, heads))
    for kind in TYPES:
        file, back = f"{tmp}/{name}-{kind}.gguf", f"{tmp}/{name}-{kind}"
        if not (run(geul, "convert", folder, "-o", file, "--type", kind) and
                run(geul, "export", file, back, "--type", "f32")):
            continue
        reader = gguf.GGUFReader(file)
        keys = {k: f.contents() for k, f in reader.fields.items()}
        check(keys["general.architecture"] == "gptneox" and keys["gptneox.attention.head_count"] == heads,
              f"{name} {kind}: keys")
        mine = filled(as_gguf(back, heads))
        check({t.name for t in reader.tensors} == set(mine) == set(source), f"{name} {kind}: names of the tensors")
        worst = plain_worst = 0.0
        for t in reader.tensors:
            if t.tensor_type == gguf.GGMLQuantizationType.BF16:
                theirs = (np.asarray(t.data).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                theirs = gguf.quants.dequantize(t.data, t.tensor_type)
            theirs = theirs.reshape(mine[t.name].shape).astype(np.float32)
            check(same(theirs, mine[t.name]), f"{name} {kind}: values of {t.name}")
            spread = float(np.abs(source[t.name]).max()) or 1.0
            worst = max(worst, float(np.abs(theirs - source[t.name]).max()) / spread)
            if t.tensor_type.name.startswith("Q"):
                plain = gguf.quants.dequantize(gguf.quants.quantize(source[t.name], t.tensor_type), t.tensor_type)
                ours, bound = block_errors(theirs - source[t.name]), block_errors(plain - source[t.name])
                check((ours <= bound * (1 + 1e-6)).all(),
                      f"{name} {kind}: a block of {t.name} has a larger squared error than gguf's quantize() leaves")
            else:
                plain_worst = max(plain_worst, float(np.abs(theirs - source[t.name]).max()) / spread)
        print(f"  {kind:5} {len(reader.tensors)} tensors, {len(keys)} keys, largest error {worst:.2e} of the maximum")
        # Blocks are held to gguf's own error above; what stays plain in a quantized file is float16 or float32.
        limit = {"f32": 0, "bf16": 5e-3}.get(kind, 6e-4)
        check(plain_worst <= limit, f"{name} {kind}: error {plain_worst}")


def write_gguf(file, config, arrays, types):
    """A file by gguf.GGUFWriter, with nothing of geul's own in it. types: of the arrays that are blocks."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    rope = config.get("rope_parameters", {})
    pct = rope.get("partial_rotary_factor", config.get("rotary_pct"))
    w = gguf.GGUFWriter(file, "gptneox")
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(hidden)
    w.add_block_count(config["num_hidden_layers"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_rope_dimension_count(int(pct * (hidden // heads)))
    w.add_rope_freq_base(rope.get("rope_theta", config.get("rotary_emb_base", 10000)))
    w.add_head_count(heads)
    w.add_parallel_residual(config.get("use_parallel_residual", True))
    w.add_layer_norm_eps(config["layer_norm_eps"])
    w.add_string("geul.gelu", "erf" if config["hidden_act"] == "gelu" else "tanh")
    for k, x in arrays.items():
        w.add_tensor(k, np.ascontiguousarray(x), raw_dtype=types.get(k))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def check_gguf_writer(geul, name, folder, config, tmp):
    """A golden's tensors in a file of gguf's writer."""
    heads = config["num_attention_heads"]
    file, back = f"{tmp}/{name}-pypi.gguf", f"{tmp}/{name}-pypi"
    source = as_gguf(folder, heads)
    write_gguf(file, config, source, {})
    check_runs(geul, name, file, folder, tmp)
    if not run(geul, "export", file, back):
        return
    b = as_gguf(back, heads)
    check(source.keys() == b.keys() and all(same(source[k], b[k]) for k in b), f"{name}: tensors of gguf's writer")
    # The new config.json names gelu_new where the golden's says gelu_fast: one formula in another order of operations.
    check(torch.allclose(logits(folder), logits(back), atol=1e-5), f"{name}: logits of gguf's writer")


def check_block_types(geul, name, folder, config, tmp):
    """Random blocks of every quantized type in a file of gguf's writer, as geul's export reads them."""
    heads = config["num_attention_heads"]
    rng = np.random.default_rng(1)
    for type_name, offsets in SCALES.items():
        kind = gguf.GGMLQuantizationType[type_name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        arrays, types, expected = as_gguf(folder, heads), {}, {}
        for k, x in arrays.items():
            if x.ndim != 2 or x.shape[1] % block:
                continue
            blocks = rng.integers(0, 256, (x.size // block, size), dtype=np.uint8)
            for at in offsets:
                blocks[:, at:at + 2] = rng.normal(0, 1e-3, (len(blocks), 1)).astype(np.float16).view(np.uint8)
            arrays[k], types[k] = blocks.reshape(len(x), -1), kind
            expected[k] = gguf.quants.dequantize(arrays[k], kind)
        file, back = f"{tmp}/{name}-{type_name}.gguf", f"{tmp}/{name}-{type_name}"
        write_gguf(file, config, arrays, types)
        if expected and run(geul, "export", file, back, "--type", "f32"):
            mine = as_gguf(back, heads)
            check(all(same(x, mine[k]) for k, x in expected.items()), f"{name} {type_name}: values of random blocks")
            print(f"  {type_name:6} {len(expected)} tensors of random blocks")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--geul", default=os.path.join(ROOT, "build", "geul"))
    parser.add_argument("golden", nargs="*")
    args = parser.parse_args()
    configs = sorted(glob.glob(os.path.join(ROOT, "tests", "golden", "*", "config.json")))
    names = args.golden or [os.path.basename(os.path.dirname(p)) for p in configs]
    with tempfile.TemporaryDirectory() as tmp:
        for name in names:
            folder = os.path.join(ROOT, "tests", "golden", name)
            with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
                config = json.load(f)
            print(name)
            check_transformers(args.geul, name, folder, tmp)
            check_gguf_reader(args.geul, name, folder, config["num_attention_heads"], tmp)
            check_gguf_writer(args.geul, name, folder, config, tmp)
            check_block_types(args.geul, name, folder, config, tmp)
    print(f"{len(names)} goldens, {len(failures)} failures; gguf reader, gguf writer and transformers agree"
          if not failures else f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
