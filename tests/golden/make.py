#!/usr/bin/env python3
"""Write the goldens of this folder: tiny random GPT-NeoX directories with what Hugging Face computes from them.

    python3 -m venv /opt/geul-py
    /opt/geul-py/bin/pip install torch==2.15.0 transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6
    /opt/geul-py/bin/python tests/golden/make.py

Every output is committed, so the tests need no Python. Seeds are fixed and kernels are held to one thread and plain
code paths: a second run writes the same bytes. README.md beside this file lists the cases; tokenizer goldens are made
by make_tok.py, which this script calls.
"""
import os

os.environ.update(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="0",
                  HF_HUB_OFFLINE="1")

import collections
import itertools
import json
import shutil

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import make_tok

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS, LR, BETAS, EPS, DECAY = 10, 1e-3, (0.9, 0.95), 1e-8, 0.1
GREEDY = 64

# name: heads x d_head, layers, d_ff, vocabulary rows, rotary_pct, and what is particular.
# `weights` names the file form; `seed` is the first one tried.
CASES = {
    "parallel":    dict(seed=1091, heads=2, d_head=16, layers=2, d_ff=64, vocab=64, pct=0.5, T=32, train=True),
    "sequential":  dict(seed=2952, heads=2, d_head=16, layers=2, d_ff=64, vocab=64, pct=0.25, T=28, train=True,
                        parallel=False, act="gelu_new", v4=True),
    "odd_sizes":   dict(seed=3009, heads=3, d_head=16, layers=1, d_ff=80, vocab=72, pct=1.0, T=24, train=True,
                        act="gelu_fast", v4=True, base=5000, eps=1e-3),
    "quantizable": dict(seed=4008, heads=2, d_head=32, layers=1, d_ff=128, vocab=96, pct=0.5, T=40,
                        weights="safetensors_sharded"),
    "head64_bf16": dict(seed=5007, heads=2, d_head=64, layers=1, d_ff=64, vocab=64, pct=0.25, T=32,
                        dtype=torch.bfloat16, weights="safetensors_sharded", parallel=False, act="gelu_new"),
    "head80_f16":  dict(seed=6011, heads=2, d_head=80, layers=1, d_ff=32, vocab=64, pct=0.25, T=24,
                        dtype=torch.float16, weights="bin", v4=True, old_buffers=True),
    "head128_f16": dict(seed=7047, heads=1, d_head=128, layers=1, d_ff=32, vocab=64, pct=0.5, T=24,
                        dtype=torch.float16, weights="bin_sharded", v4=True),
    "head256_bf16": dict(seed=8245, heads=1, d_head=256, layers=1, d_ff=32, vocab=48, pct=0.25, T=24,
                         dtype=torch.bfloat16, coarse=True),
    "tied":        dict(seed=9300, heads=2, d_head=16, layers=2, d_ff=64, vocab=64, pct=0.25, T=32, train=True,
                        tied=True, attention_bias=False),
    "full":        dict(seed=9000, heads=2, d_head=16, layers=2, d_ff=64, vocab=448, pct=0.5, T=0,
                        weights="safetensors_sharded", v4=True, tokenizer=True),
}
TORCH_NAME = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def config_json(c):
    """The dict of config.json, in the transformers 4 form (as Polyglot's published one) or in the form 5 writes."""
    hidden = c["heads"] * c["d_head"]
    d = {
        "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "bos_token_id": 0, "eos_token_id": 0,
        "hidden_act": c.get("act", "gelu"), "hidden_size": hidden, "initializer_range": 0.02,
        "intermediate_size": c["d_ff"], "layer_norm_eps": c.get("eps", 1e-5), "max_position_embeddings": 128,
        "num_attention_heads": c["heads"], "num_hidden_layers": c["layers"],
        "tie_word_embeddings": c.get("tied", False),
        "use_cache": True, "use_parallel_residual": c.get("parallel", True), "vocab_size": c["vocab"],
    }
    dtype = TORCH_NAME[c.get("dtype", torch.float32)]
    if c.get("v4"):
        d.update(rotary_emb_base=c.get("base", 10000), rotary_pct=c["pct"], torch_dtype=dtype,
                 transformers_version="4.22.0.dev0")
    else:
        d.update(rope_parameters={"partial_rotary_factor": c["pct"], "rope_theta": float(c.get("base", 10000)),
                                  "rope_type": "default"}, dtype=dtype, attention_bias=c.get("attention_bias", True), attention_dropout=0.0,
                 classifier_dropout=0.1, hidden_dropout=0.0, pad_token_id=None, is_decoder=False,
                 transformers_version="5.23.0")
    return dict(sorted(d.items()))


def random_weights(c, seed):
    """Weights with logits of about +-6 and nothing that is one or zero: a swapped bias or scale must show."""
    rng = np.random.default_rng(seed)
    hidden, ff, vocab = c["heads"] * c["d_head"], c["d_ff"], c["vocab"]
    w = {}

    def normal(name, shape, std, mean=0.0):
        x = rng.standard_normal(shape) * std + mean
        if c.get("coarse") and len(shape) == 2:  # few distinct values, so that the committed file packs well
            x = np.round(x / std * 1.5) * (std / 1.5)
        w[name] = torch.tensor(x, dtype=torch.float32).to(c.get("dtype", torch.float32))

    def norm(name):
        normal(name + ".weight", (hidden,), 0.3, 1.0)
        normal(name + ".bias", (hidden,), 0.3)

    def linear(name, rows, cols, gain):
        normal(name + ".weight", (rows, cols), gain / cols ** 0.5)
        if "attention" not in name or c.get("attention_bias", True):
            normal(name + ".bias", (rows,), 0.3)

    normal("gpt_neox.embed_in.weight", (vocab, hidden), 2.2 / hidden ** 0.5 if c.get("tied") else 1.0)
    for i in range(c["layers"]):
        p = f"gpt_neox.layers.{i}."
        norm(p + "input_layernorm")
        norm(p + "post_attention_layernorm")
        linear(p + "attention.query_key_value", 3 * hidden, hidden, 1.6)
        linear(p + "attention.dense", hidden, hidden, 2.5)
        linear(p + "mlp.dense_h_to_4h", ff, hidden, 1.3)
        linear(p + "mlp.dense_4h_to_h", hidden, ff, 1.5)
    norm("gpt_neox.final_layer_norm")
    if not c.get("tied"):
        normal("lm_head.weight", (vocab, hidden), 2.2 / hidden ** 0.5)
    return w


def old_buffers(c, w):
    """What checkpoints of transformers 4.2x carried besides the weights: a reader skips them."""
    n_rot = int(c["d_head"] * c["pct"])
    for i in range(c["layers"]):
        p = f"gpt_neox.layers.{i}.attention."
        w[p + "bias"] = torch.tril(torch.ones(128, 128, dtype=torch.bool)).view(1, 1, 128, 128)
        w[p + "masked_bias"] = torch.tensor(-1e9)
        w[p + "rotary_emb.inv_freq"] = 1.0 / (10000 ** (torch.arange(0, n_rot, 2).float() / n_rot))
    return w


def write_weights(folder, form, w):
    """Write w as one file or as two shards with their index, by safetensors or by torch.save."""
    ext = "safetensors" if form.startswith("safetensors") else "bin"
    stem = "model" if ext == "safetensors" else "pytorch_model"

    def put(path, part):
        if ext == "safetensors":
            save_file(part, path, metadata={"format": "pt"})
        else:
            torch.save(part, path)

    if not form.endswith("sharded"):
        part = w
        if ext == "bin":  # as model.state_dict() is: an OrderedDict with an attribute, which pickles as BUILD
            part = collections.OrderedDict(w)
            part._metadata = collections.OrderedDict({"": {"version": 1}})
        put(os.path.join(folder, f"{stem}.{ext}"), part)
        return
    names = list(w)
    half = len(names) // 2
    where = {}
    for i, part in enumerate((names[:half], names[half:]), 1):
        file = f"{stem}-{i:05d}-of-00002.{ext}"
        tensors = {n: w[n] for n in part}
        if ext == "bin":  # vectors of a shard share one storage, each at its own offset in it
            small = [n for n in part if w[n].dim() == 1]
            pool = torch.cat([w[n] for n in small])
            tensors.update(zip(small, pool.split([len(w[n]) for n in small])))
        put(os.path.join(folder, file), tensors)
        where.update({n: file for n in part})
    total = sum(t.numel() * t.element_size() for t in w.values())
    write_json(os.path.join(folder, f"{stem}.{ext}.index.json"),
               {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))})


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1)
        f.write("\n")


def load(folder):
    """The model as transformers reads that folder, in float32 with plain attention."""
    model, info = GPTNeoXForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    return model.eval()


@torch.no_grad()
def greedy(model, tokens, usable):
    """GREEDY ids by argmax over the usable rows, with the least margin met and whether padding ever had the maximum."""
    ids, margin, padding_won, cache = list(tokens), np.inf, False, None
    fresh = ids
    for _ in range(GREEDY):
        whole = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        out = model(input_ids=torch.tensor([fresh]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        top = whole[:usable].topk(2)
        margin = min(margin, float(top.values[0] - top.values[1]))
        padding_won |= int(whole.argmax()) >= usable
        best = int(top.indices[0])
        assert best == int(out.logits[0, -1, :usable].argmax()), "cache and no cache disagree: choose another seed"
        ids.append(best)
        fresh = [best]
    return ids[len(tokens):], margin, padding_won


def longest_run(ids):
    return max(len(list(g)) for _, g in itertools.groupby(ids))


def save_npy(path, array, dtype):
    np.save(path, np.ascontiguousarray(array, dtype=dtype))


def sequence_loss(model, tokens):
    logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    return F.cross_entropy(logits[:-1], torch.tensor(tokens[1:]))


def write_training(folder, tokens):
    """loss.npy, grads.safetensors, adamw.npy: the loss of the sequence, its gradients, and STEPS AdamW steps on it."""
    model = load(folder)
    loss = sequence_loss(model, tokens)
    loss.backward()
    save_npy(os.path.join(folder, "loss.npy"), [loss.item()], np.float32)
    save_file({n: p.grad.contiguous() for n, p in sorted(model.named_parameters())},
              os.path.join(folder, "grads.safetensors"))
    groups = [{"params": [p for p in model.parameters() if p.dim() == 2], "weight_decay": DECAY},
              {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS, foreach=False, fused=False)
    losses = []
    for _ in range(STEPS):
        opt.zero_grad()
        loss = sequence_loss(model, tokens)
        losses.append(loss.item())
        loss.backward()
        opt.step()
    losses.append(sequence_loss(model, tokens).item())
    save_npy(os.path.join(folder, "adamw.npy"), losses, np.float32)
    with open(os.path.join(folder, "train.txt"), "w", encoding="utf-8") as f:
        f.write(f"steps {STEPS} lr {LR} beta1 {BETAS[0]} beta2 {BETAS[1]} eps {EPS} weight_decay {DECAY} "
                "on 2-D tensors only, no clipping, constant rate\n")


def make_case(name, c):
    """Write tests/golden/<name>/. Takes the first seed from c["seed"] on whose greedy continuation has no near tie."""
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    write_json(os.path.join(folder, "config.json"), config_json(c))
    usable, text_ids = c["vocab"], None
    if c.get("tokenizer"):
        usable, text_ids = make_tok.write_full_tokenizer(folder)
    floor = 2e-3 if c.get("dtype", torch.float32) == torch.float32 else 1e-2
    for seed in range(c["seed"], c["seed"] + 1000):
        w = random_weights(c, seed)
        if c.get("old_buffers"):
            old_buffers(c, w)
        write_weights(folder, c.get("weights", "safetensors"), w)
        tokens = text_ids or np.random.default_rng(seed + 500).integers(0, usable, c["T"]).tolist()
        model = load(folder)
        ids, margin, padding_won = greedy(model, tokens, usable)
        varied = len(set(ids)) >= 20 and longest_run(ids) <= 4
        if margin > floor and varied and (padding_won or not text_ids) and not (text_ids and 2 in ids):
            break
    else:
        raise SystemExit(f"{name}: no seed without near ties")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].numpy()
    save_npy(os.path.join(folder, "tokens.npy"), tokens, np.int32)
    save_npy(os.path.join(folder, "logits.npy"), logits, np.float32)
    save_npy(os.path.join(folder, "greedy.npy"), ids, np.int32)
    if c.get("tokenizer"):
        make_tok.write_full_text(folder, tokens, ids)
    if c.get("train"):
        write_training(folder, tokens)
    for file in os.listdir(folder):
        os.chmod(os.path.join(folder, file), 0o644)
    print(f"{name}: seed {seed}, logits {logits.min():.2f}..{logits.max():.2f}, least margin {margin:.4f}, "
          f"{len(set(ids))} distinct ids", flush=True)


def main():
    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = False
    torch.use_deterministic_algorithms(True)
    for name, c in CASES.items():
        make_case(name, c)
    with open(os.path.join(HERE, "cases.tsv"), "w", encoding="utf-8") as f:
        f.write("case\tdtype\ttokens\tvocab\tusable\ttrain\n")
        for name, c in CASES.items():
            tokens = np.load(os.path.join(HERE, name, "tokens.npy"))
            usable = make_tok.FULL_SIZE if c.get("tokenizer") else c["vocab"]
            f.write(f"{name}\t{TORCH_NAME[c.get('dtype', torch.float32)]}\t{len(tokens)}\t{c['vocab']}\t{usable}\t"
                    f"{int(bool(c.get('train')))}\n")
    make_tok.main()


if __name__ == "__main__":
    main()
