#!/usr/bin/env python3
"""A small model from nothing on the petitions, by `geul train` and by PyTorch: do they learn the same?

    bench/training/parity.py [--steps 300] [--plot parity.png]

6 layers x 256, the vocabulary of share/geul-mini.gguf (6.8 M parameters). Both begin with the weights of geul's
initial.gguf, take the same windows in the same order (dealing.py), with the same rate at every step, and do not let
documents in a window see each other. Held out are the last petitions of 2019-07. Three runs: geul in float32, geul in
bfloat16, PyTorch in float32. Their held-out losses at the end must lie within 1 % of each other. The models stay in
--work for pairs.py.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import time

import torch
from transformers import GPTNeoXForCausalLM

import dealing
import torch_trainer

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "share" / "geul-mini.gguf"
RATE, FLOOR, WITHIN = 1e-3, 0.1, 0.01


def run(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout.decode(errors='replace')[-3000:]}")


def make_shards(a):
    """learn-00000.geulshard and measure-00000.geulshard of the petitions' contents."""
    rows = []
    for path in sorted(a.data.glob("petitions_*.jsonl")):
        rows += [json.loads(line)["content"] for line in path.read_text().splitlines()]
    for name, part in (("learn", rows[: -a.held_out]), ("measure", rows[-a.held_out :])):
        file = a.work / f"{name}.jsonl"
        file.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in part))
        run(a.geul, "tokenize", "-m", TOKENIZER, "--shards", a.work / name, file)


def train_geul(a, precision):
    """Runs geul; [(step, loss)] of held-out data and the losses of all steps."""
    output = a.work / f"geul-{precision}"
    settings = {"model": a.work / "geul-f32" / "initial.gguf"} if precision != "f32" else {
        "tokenizer": TOKENIZER, "layers": 6, "width": 256, "heads": 4}
    settings.update({
        "ctx-size": a.context, "train-file": a.work / "learn-00000.geulshard", "eval-file":
        a.work / "measure-00000.geulshard", "batch-size": a.batch, "packing": "off", "steps": a.steps, "lr": RATE,
        "lr-floor": FLOOR, "schedule": "cosine", "warmup": warmup(a), "precision": precision, "eval-every": a.every,
        "sample-every": 0, "save-every": 0, "on-trouble": "skip", "seed": a.seed, "type": "f32", "output": output})
    config = a.work / f"{precision}.conf"
    config.write_text("".join(f"{k} = {v}\n" for k, v in settings.items()))
    subprocess.run(["rm", "-rf", str(output)])
    start = time.time()
    run(a.geul, "train", config)
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    refused = sum(r["skipped"] for r in lines if r["type"] == "step")
    if refused:
        print(f"geul left out {refused} steps")
    return {"held": [(r["step"], r["loss"]) for r in lines if r["type"] == "evaluation"],
            "learned": [r["loss"] for r in lines if r["type"] == "step"], "seconds": time.time() - start}


def warmup(a):
    return a.steps * 3 // 100


def rate_at(a, step):
    """The learning rate of a step from 1 (train/optimizer.c)."""
    if step <= warmup(a):
        return RATE * step / warmup(a)
    done = (step - warmup(a)) / (a.steps - warmup(a))
    return RATE * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done)))


def tensors(windows, end, context):
    """Ids, targets, mask and positions of some windows; what a short one lacks sees itself only and has no target."""
    ids = torch.zeros(len(windows), context, dtype=torch.long)
    targets = torch.full((len(windows), context), -100)
    documents = torch.arange(-1, -context - 1, -1).repeat(len(windows), 1)
    places = torch.zeros(len(windows), context, dtype=torch.long)
    for i, w in enumerate(windows):
        n = len(w) - 1
        where = dealing.positions(w[:n], end)
        ids[i, :n], targets[i, :n] = torch.tensor(w[:n]), torch.tensor(w[1:])
        documents[i, :n] = torch.tensor([d for d, _ in where])
        places[i, :n] = torch.tensor([p for _, p in where])
    seen = (documents[:, :, None] == documents[:, None, :]) & torch.ones(context, context).tril().bool()
    return ids, targets, {"attention_mask": seen[:, None], "position_ids": places}


def evaluate(a, model, windows, end):
    """Mean loss per target."""
    total, count = 0.0, 0
    with torch.no_grad():
        for i in range(0, len(windows), a.batch):
            ids, targets, rest = tensors(windows[i : i + a.batch], end, a.context)
            n = int((targets != -100).sum())
            total += float(torch_trainer.loss_of(model, ids, targets, "f32", **rest)) * n
            count += n
    return total / count


def train_torch(a):
    """The same in PyTorch."""
    directory = a.work / "initial-hf"
    subprocess.run(["rm", "-rf", str(directory)])
    run(a.geul, "export", a.work / "geul-f32" / "initial.gguf", directory, "--type", "f32")
    model = GPTNeoXForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="sdpa")
    model.train()
    optimizer = torch_trainer.make_optimizer(model, RATE, "fused")
    ids, end = dealing.read_shard(a.work / "learn-00000.geulshard")
    windows = dealing.windows(ids, a.context)
    held = dealing.windows(dealing.read_shard(a.work / "measure-00000.geulshard")[0], a.context)
    start = time.time()
    result = {"held": [(0, evaluate(a, model, held, end))], "learned": []}
    for step in range(1, a.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(a, step)
        taken = [windows[i] for i in dealing.batch(a.seed, len(windows), step - 1, a.batch)]
        ids, targets, rest = tensors(taken, end, a.context)
        result["learned"].append(torch_trainer.learn(model, optimizer, ids, targets, "f32", **rest))
        if step % a.every == 0 or step == a.steps:
            result["held"].append((step, evaluate(a, model, held, end)))
    return {**result, "seconds": time.time() - start}


def plot(runs, path):
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5))
    styles = {"geul f32": ("C0", "-", 1.0), "geul bf16": ("C2", "--", 1.0), "PyTorch f32": ("C3", ":", 2.0)}
    for name, r in runs.items():
        color, style, width = styles[name]
        left.plot(range(1, len(r["learned"]) + 1), r["learned"], style, color=color, lw=width, alpha=0.8, label=name)
        right.plot(*zip(*r["held"]), style, color=color, lw=width + 0.5, marker="o", ms=3, label=name)
    for axes, title in ((left, "learned"), (right, "held out")):
        axes.set(xlabel="step", ylabel="nats per token", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    print(f"plot: {path}")


def tell(a, runs):
    """Prints the table; whether all agree."""
    names = list(runs)
    print("| step | " + " | ".join(names) + " |\n" + "| --- " * (len(names) + 1) + "|")
    for rows in zip(*(runs[n]["held"] for n in names)):
        print(f"| {rows[0][0]} | " + " | ".join(f"{loss:.4f}" for _, loss in rows) + " |")
    print("| seconds | " + " | ".join(f"{runs[n]['seconds']:.0f}" for n in names) + " |")
    theirs, good = runs["PyTorch f32"], True
    for name in names[:-1]:
        apart = [abs(x - y) for x, y in zip(runs[name]["learned"], theirs["learned"])]
        relative = runs[name]["held"][-1][1] / theirs["held"][-1][1] - 1
        good &= abs(relative) <= WITHIN
        print(f"{name}: held-out loss {100 * relative:+.3f} % of PyTorch's (<= 1 %{'' if abs(relative) <= WITHIN else ', missed'}); "
              f"losses of steps differ by {max(apart[:10]):.1e} at most in the first 10, {max(apart):.1e} in all")
    return good


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--geul", type=pathlib.Path, default=ROOT / "build" / "geul")
    p.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared" / "data" / "petitions")
    p.add_argument("--work", type=pathlib.Path, default=pathlib.Path.home() / ".cache" / "geul" / "train-petitions")
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--every", type=int, default=50, help="steps between looks at held-out data")
    p.add_argument("--held-out", type=int, default=40, help="petitions")
    p.add_argument("-b", "--batch", type=int, default=8)
    p.add_argument("-c", "--context", type=int, default=256)
    p.add_argument("-s", "--seed", type=int, default=7)
    p.add_argument("-t", "--threads", type=int, default=2)
    p.add_argument("--plot", type=pathlib.Path)
    a = p.parse_args()
    if not a.data.is_dir():
        print(f"skipped: {a.data} is not there")
        return
    a.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(a.threads)
    make_shards(a)
    runs = {"geul f32": train_geul(a, "f32"), "geul bf16": train_geul(a, "bf16"), "PyTorch f32": train_torch(a)}
    (a.work / "runs.json").write_text(json.dumps(runs))
    good = tell(a, runs)
    if a.plot:
        plot(runs, a.plot)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
