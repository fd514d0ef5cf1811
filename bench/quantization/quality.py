#!/usr/bin/env python3
"""What quantizing costs a model: KL divergence from its float32 original, geul's files compared with llama.cpp's.

    build/geul convert ../mini-hf -o /tmp/mini-f32.gguf --type f32
    build/geul imatrix -m /tmp/mini-f32.gguf -f calibration.txt -o /tmp/mini.imatrix
    bench/quantization/quality.py /tmp/mini-f32.gguf --text held-out.txt --imatrix /tmp/mini.imatrix q4_0 q4_k_m iq4_xs

Every type is made without and, when given, with the importance matrix, three times: by llama.cpp; by `geul quantize`;
and by `geul quantize` with exactly the tensor types that llama.cpp chose, which compares the search for scales alone.
--bpw adds files that `geul quantize --target-bpw` makes. With --details a row has the size of the file and, for the
first text, mean, median and 99th percentile of the divergence and how often the likeliest token is the same, and the
third kind of file is left out. Otherwise: a column for each text: mean KL divergence over its tokens, in
1/1000 nats, and in brackets geul's share of llama.cpp's, with the standard error of the difference.

The judge belongs to neither: the tensors are dequantized by the PyPI package gguf and the logits computed by PyTorch in
float32, with the exact GELU. Needs a Python with gguf, numpy and torch, and in --venv one with llama_cpp
(bench/peers/README.md).
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# LLAMA_FTYPE numbers, as in general.file_type
FILE_TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12,
              "q3_k_l": 13, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "iq4_nl": 25,
              "iq4_xs": 30}


def llama_child(source, target, kind, importance):
    """In the Python that has llama_cpp: quantizes; importance is an .npz of one array per tensor, or "-"."""
    import ctypes
    import llama_cpp as L
    import numpy as np

    quiet = L.llama_log_callback(lambda level, text, user: None)
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    L.llama_backend_init()
    how = L.llama_model_quantize_default_params()
    how.ftype = FILE_TYPES[kind]
    if importance != "-":
        arrays = {name: np.ascontiguousarray(a, np.float32) for name, a in np.load(importance).items()}
        list_type = L.llama_model_imatrix_data * (len(arrays) + 1)  # the last one, without a name, ends the list
        entries = list_type(*[(name.encode(), a.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), a.size)
                              for name, a in arrays.items()])
        how.imatrix = ctypes.cast(entries, ctypes.POINTER(L.llama_model_imatrix_data))
    if L.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(how)) != 0:
        sys.exit(f"llama.cpp cannot quantize {source} to {kind}")


def run(*command):
    """What the command prints."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout.decode()


class Model:
    """A GPT-NeoX GGUF file in PyTorch. B texts, T tokens, H heads, D dims of a head, C of the model."""

    def __init__(self, path):
        import gguf
        import torch
        reader = gguf.GGUFReader(path)
        key = {k: f.contents() for k, f in reader.fields.items() if k.startswith("gptneox.")}
        self.layers, self.width = key["gptneox.block_count"], key["gptneox.embedding_length"]
        self.heads, self.eps = key["gptneox.attention.head_count"], key["gptneox.attention.layer_norm_epsilon"]
        self.rotary, self.base = key["gptneox.rope.dimension_count"], key.get("gptneox.rope.freq_base", 10000.0)
        self.parallel = key["gptneox.use_parallel_residual"]
        self.types = {t.name: t.tensor_type.name.lower() for t in reader.tensors}
        self.bytes = sum(int(t.n_bytes) for t in reader.tensors)
        self.elements = sum(int(t.n_elements) for t in reader.tensors)
        self.w = {t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).astype("float32"))
                  for t in reader.tensors}

    def linear(self, x, name):
        import torch.nn.functional as F
        return F.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    def norm(self, x, name):
        import torch.nn.functional as F
        return F.layer_norm(x, (self.width,), self.w[name + ".weight"], self.w[name + ".bias"], self.eps)

    def rope(self, x):
        """NeoX pairing over x (B, H, T, D)."""
        import torch
        n = self.rotary
        angle = torch.arange(x.shape[2])[:, None] * self.base ** (-torch.arange(0, n, 2) / n)
        c, s = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()
        turned = torch.cat([-x[..., n // 2:n], x[..., :n // 2]], -1)
        return torch.cat([x[..., :n] * c + turned * s, x[..., n:]], -1)

    def logits(self, ids):
        """(B, T) ids to (B, T, V)."""
        import torch.nn.functional as F
        x = self.w["token_embd.weight"][ids]
        B, T, C = x.shape
        for i in range(self.layers):
            at = f"blk.{i}."
            q, k, v = (y.view(B, T, self.heads, -1).transpose(1, 2)
                       for y in self.linear(self.norm(x, at + "attn_norm"), at + "attn_qkv").split(C, -1))
            y = F.scaled_dot_product_attention(self.rope(q), self.rope(k), v, is_causal=True)
            attention = self.linear(y.transpose(1, 2).reshape(B, T, C), at + "attn_output")
            into = x if self.parallel else x + attention
            hidden = F.gelu(self.linear(self.norm(into, at + "ffn_norm"), at + "ffn_up"))
            x = x + attention + self.linear(hidden, at + "ffn_down")
        return self.linear(self.norm(x, "output_norm"), "output")

    def log_probabilities(self, texts):
        """For every text a list of (T, V), one per chunk."""
        import torch
        with torch.no_grad():
            return [[self.logits(c[None])[0].log_softmax(-1) for c in chunks] for chunks in texts]


def divergences(base, other):
    """KL divergence from base at every token, in nats."""
    import torch
    return torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in zip(base, other)]).double()


def agreement(base, other):
    """Share of the tokens after which both find the same one the likeliest."""
    import torch
    return float(torch.cat([p.argmax(-1) == q.argmax(-1) for p, q in zip(base, other)]).double().mean())


def tokens(geul, model, path, length, chunks):
    """The text's ids in pieces of that length, without the remainder. No more text is read than a command line takes."""
    import torch
    text = pathlib.Path(path).read_bytes()[:100000].decode(errors="ignore")
    ids = [int(i) for i in run(geul, "tokenize", "-m", model, "-p", text).split()]
    n = min(len(ids) // length, chunks)
    if n == 0:
        sys.exit(f"{path} has {len(ids)} tokens, fewer than one chunk of {length}")
    return list(torch.tensor(ids[:n * length]).view(n, length))


def read_importance(path, target):
    """Writes the means of squares of a GGUF importance matrix as an .npz."""
    import gguf
    import numpy as np
    tensors = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
    sums = {n[:-len(".in_sum2")]: a for n, a in tensors.items() if n.endswith(".in_sum2")}
    np.savez(target, **{n: a.reshape(-1) / max(float(tensors[n + ".counts"].reshape(-1)[0]), 1.0)
                        for n, a in sums.items()})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", help="the original, a float32 GGUF file")
    p.add_argument("types", nargs="*", default=["q4_k_m"], help=" ".join(FILE_TYPES))
    p.add_argument("--text", action="append", required=True, help="text to judge by; may be given several times")
    p.add_argument("--imatrix", help="from `geul imatrix`, of other text")
    p.add_argument("--bpw", type=float, action="append", default=[], help="also --target-bpw files")
    p.add_argument("--length", type=int, default=256, help="tokens of a chunk")
    p.add_argument("--chunks", type=int, default=40, help="most chunks of a text")
    p.add_argument("--geul", type=pathlib.Path, default=ROOT / "build" / "geul")
    p.add_argument("--venv", type=pathlib.Path, default=pathlib.Path("/opt/peer/venv"), help="the Python of llama.cpp")
    p.add_argument("-t", "--threads", type=int, default=os.cpu_count())
    p.add_argument("--details", action="store_true", help="another table: see above")
    p.add_argument("--json", action="store_true", help="one object per file and line instead of the table")
    a = p.parse_intermixed_args()

    import torch
    torch.set_num_threads(a.threads)
    texts = [tokens(a.geul, a.model, t, a.length, a.chunks) for t in a.text]
    base = Model(a.model).log_probabilities(texts)
    if a.details:
        print("| type | imatrix | made by | bytes | bits/weight | mean | median | 99 % | same token |\n" +
              "| --- " * 9 + "|")
    elif not a.json:
        print("| type | imatrix | made by | bits/weight | " +
              " | ".join(pathlib.Path(t).stem for t in a.text) + " |\n" + "| --- " * (4 + len(a.text)) + "|")

    def judge(path, kind, importance, maker, beside=None):
        """Prints the row of a file; returns its model's types and divergences."""
        model = Model(path)
        logs = model.log_probabilities(texts)
        found = [divergences(b, o) for b, o in zip(base, logs)]
        bpw = 8 * model.bytes / model.elements
        if a.json:
            print(json.dumps({"type": kind, "imatrix": importance, "made_by": maker, "bpw": bpw,
                              "kl": {t: float(f.mean()) for t, f in zip(a.text, found)}}), flush=True)
            return model.types, found
        if a.details:
            f = 1000 * found[0]
            print(f"| {kind} | {'yes' if importance else 'no'} | {maker} | {os.path.getsize(path):,} | {bpw:.3f} | "
                  f"{f.mean():.3f} | {f.median():.3f} | {f.quantile(0.99):.2f} | "
                  f"{100 * agreement(base[0], logs[0]):.2f} % |", flush=True)
            return model.types, found
        cells = []
        for i, f in enumerate(found):
            cell = f"{1000 * f.mean():.3f}"
            if beside:
                mean, difference = beside[i].mean(), f - beside[i]
                cell += f" ({f.mean() / mean:.3f} ± {difference.std() / len(f) ** 0.5 / mean:.3f})"
            cells.append(cell)
        print(f"| {kind} | {'yes' if importance else 'no'} | {maker} | {bpw:.3f} | " + " | ".join(cells) + " |",
              flush=True)
        return model.types, found

    with tempfile.TemporaryDirectory() as scratch:
        out, arrays = f"{scratch}/out.gguf", f"{scratch}/importance.npz"
        if a.imatrix:
            read_importance(a.imatrix, arrays)
        for kind in a.types:
            for importance in [False, True] if a.imatrix else [False]:
                extra = ["--imatrix", a.imatrix] if importance else []
                run(a.venv / "bin" / "python", __file__, "--child", a.model, out, kind, arrays if importance else "-")
                types, theirs = judge(out, kind, importance, "llama.cpp")
                run(a.geul, "quantize", a.model, out, kind, *extra)
                judge(out, kind, importance, "geul", theirs)
                if a.details:
                    continue
                rules = [r for n, t in types.items() if t != "f32" for r in ("--tensor-type", f"^{re.escape(n)}$={t}")]
                run(a.geul, "quantize", a.model, out, kind, *extra, *rules)
                judge(out, kind, importance, "geul, llama.cpp's types", theirs)
        for bpw in a.bpw:
            for importance in [False, True] if a.imatrix else [False]:
                extra = ["--imatrix", a.imatrix] if importance else []
                run(a.geul, "quantize", a.model, out, "--target-bpw", bpw, *extra)
                judge(out, f"{bpw} bpw", importance, "geul")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        llama_child(*sys.argv[2:])
    else:
        main()
