#!/usr/bin/env python3
"""PyTorch training a GPT-NeoX on request: lines of numbers in, a line of JSON per step out. Started by speed.py.

    torch_trainer.py '{"model": DIR, "ids": FILE, "batch": 4, "context": 256, "precision": "f32", ...}'

transformers' GPTNeoXForCausalLM, AdamW (decay on matrices only), gradients clipped to norm 1. ids: int32, context + 1 a
sample; they are learned in the order in which geul learns them. Whatever is faster can be chosen:
    precision  f32; bf16: torch.autocast
    attention  sdpa, eager
    adamw      fused, foreach, loop
    compile    torch.compile of the model
    recompute  gradient checkpointing
"""
import json
import sys
import time

import numpy
import torch
from transformers import GPTNeoXForCausalLM

import dealing


def status_bytes(key):
    """A figure of /proc/self/status: VmHWM is the peak of resident memory."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(key + ":"))


def reset_peak():
    """Lets VmHWM begin again: what loading took is not counted."""
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")


def make_optimizer(model, rate, kind, decay=0.1):
    """AdamW in one of PyTorch's three ways."""
    groups = [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": decay},
              {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0}]
    way = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}[kind]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), eps=1e-8, **way)


def loss_of(model, ids, targets, precision, **inputs):
    """Mean loss over the targets that are not -100; (batch, context) ids and targets."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = model(input_ids=ids, use_cache=False, **inputs).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def learn(model, optimizer, ids, targets, precision, clip=1.0, **inputs):
    """One step; the loss before it."""
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of(model, ids, targets, precision, **inputs)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return float(loss.detach())


def main():
    o = {"batch": 4, "context": 256, "precision": "f32", "attention": "sdpa", "adamw": "fused", "compile": False,
         "recompute": False, "rate": 1e-4, "seed": 0, "threads": 2, **json.loads(sys.argv[1])}
    torch.set_num_threads(o["threads"])
    base = status_bytes("VmRSS")
    model = GPTNeoXForCausalLM.from_pretrained(o["model"], dtype=torch.float32, attn_implementation=o["attention"])
    model.train()
    if o["recompute"]:
        model.gradient_checkpointing_enable()
    optimizer = make_optimizer(model, o["rate"], o["adamw"])
    data = torch.from_numpy(numpy.fromfile(o["ids"], "<i4").reshape(-1, o["context"] + 1).astype("i8"))
    run = torch.compile(model) if o["compile"] else model
    reset_peak()
    step = 0

    def advance():
        nonlocal step
        start, cpu = time.perf_counter(), time.process_time()
        batch = data[dealing.batch(o["seed"], len(data), step, o["batch"])]
        loss = learn(run, optimizer, batch[:, :-1], batch[:, 1:], o["precision"])
        step += 1
        print(json.dumps({"loss": loss, "seconds": time.perf_counter() - start,
                          "cpu_seconds": time.process_time() - cpu, "tokens": o["batch"] * o["context"],
                          "peak_rss_bytes": status_bytes("VmHWM"), "import_bytes": base}), flush=True)

    advance()
    for line in sys.stdin:
        for _ in range(int(line)):
            advance()


if __name__ == "__main__":
    main()
