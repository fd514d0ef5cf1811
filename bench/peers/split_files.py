#!/usr/bin/env python3
"""Check that llama.cpp loads the parts that geul writes, and computes the same from them as from one file:

    /opt/peer/venv/bin/python bench/peers/split_files.py [MODEL] [--geul build/geul] [--type q4_k_m] [--parts-of 10]

MODEL is quantized by `geul quantize` into one file and into parts of so many tensors each. llama.cpp and geul compute
the logits of every position of 64 tokens from both; all bits must be the same. Run by the Python that has llama_cpp
(README.md); the exit code is 1 where anything differs.
"""
import argparse
import ctypes
import pathlib
import subprocess
import sys
import tempfile

import llama_cpp as L
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
IDS = [(7 * i * i + 11) % 1000 for i in range(64)]


def llama_logits(path):
    """(positions, vocabulary) of llama.cpp for IDS, with 1 thread."""
    options = L.llama_model_default_params()
    options.n_gpu_layers = 0
    model = L.llama_model_load_from_file(path.encode(), options)
    if not model:
        sys.exit(f"llama.cpp cannot load {path}")
    options = L.llama_context_default_params()
    options.n_ctx = options.n_batch = len(IDS)
    options.n_threads = options.n_threads_batch = 1
    context = L.llama_init_from_model(model, options)
    if not context:
        sys.exit(f"llama.cpp has no context of {len(IDS)} tokens for {path}")
    batch = L.llama_batch_init(len(IDS), 0, 1)
    batch.n_tokens = len(IDS)
    for i, token in enumerate(IDS):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    if L.llama_decode(context, batch) != 0:
        sys.exit(f"llama.cpp failed to compute a batch of {path}")
    n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
    rows = [np.ctypeslib.as_array(L.llama_get_logits_ith(context, i), (n_vocab,)).copy() for i in range(len(IDS))]
    L.llama_batch_free(batch)
    L.llama_free(context)
    L.llama_model_free(model)
    return np.stack(rows)


def geul_logits(geul, path, scratch):
    """The same of geul."""
    out = f"{scratch}/logits.npy"
    ids = " ".join(map(str, IDS))
    subprocess.run([geul, "logits", "-m", path, "--ids", ids, "-o", out], check=True, stdout=subprocess.DEVNULL)
    return np.load(out)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", nargs="?", default=str(ROOT / "share" / "geul-mini.gguf"), help="any GGUF file")
    p.add_argument("--geul", default=str(ROOT / "build" / "geul"))
    p.add_argument("--type", default="q4_k_m", help="that `geul quantize` makes")
    p.add_argument("--parts-of", type=int, default=10, help="tensors in each part")
    a = p.parse_args()
    quiet = L.llama_log_callback(lambda level, text, user: None)
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    L.llama_backend_init()
    with tempfile.TemporaryDirectory() as scratch:
        whole, split = f"{scratch}/whole.gguf", f"{scratch}/split.gguf"
        subprocess.run([a.geul, "quantize", a.model, whole, a.type], check=True, capture_output=True)
        subprocess.run([a.geul, "quantize", a.model, split, a.type, "--split-max-tensors", str(a.parts_of)],
                       check=True, capture_output=True)
        parts = sorted(map(str, pathlib.Path(scratch).glob("split-*-of-*.gguf")))
        if len(parts) < 2:
            sys.exit(f"{a.model} fits into one part of {a.parts_of} tensors; give a smaller --parts-of")
        failed = 0
        for name, of in (("llama.cpp", llama_logits), ("geul", lambda path: geul_logits(a.geul, path, scratch))):
            one, many = of(whole), of(parts[0])
            same = one.shape == many.shape and bool(np.isfinite(one).all()) and one.tobytes() == many.tobytes()
            failed += not same
            print(f"{name}: {len(parts)} parts, logits {one.shape}: " +
                  ("the same bits" if same else f"they differ by up to {np.abs(one - many).max()}"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
