#!/usr/bin/env python3
"""The memory of training: planned by geul_train_estimate() and measured (VmHWM) over a step.

    bench/training/memory.py                     activations against the length; an adapter of 1.3B
    bench/training/memory.py --only large        an adapter of 12.8B: 8 GB of disk, minutes for one step

Models are random (`geul synth`), made in --work when missing. Steps are bench_train's.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import speed

GB, MIB = 1e9, 2**20
PLANNED = ("mapped", "weights", "gradients", "states", "activations", "scratch")


def measure(a, model, precision, batch, context, rank, recompute, steps=0):
    """The plan, and the last of 1 + steps steps."""
    w = speed.Worker([a.bench_train, model, precision, "-", batch, context, rank, "-", recompute], dict(os.environ))
    plan, step = w.read(), w.read()
    if steps:
        step = w.steps(steps)[-1]
    w.close()
    return plan, step


def synth(a, spec, name):
    path = a.work / f"{name}.gguf"
    if not path.exists():
        speed.run(a.geul, "synth", spec, "-o", path)
    return path


def lengths(a):
    """Memory other than weights, gradients and states at two lengths, one sample: may grow as the length does."""
    a.work.mkdir(parents=True, exist_ok=True)
    config = a.work / "config.json"
    config.write_text(json.dumps(speed.MODEL))
    model = synth(a, f"{config}:f32", "131m-f32")
    print("| recomputation | " + " | ".join(f"T = {t}, MiB" for t in a.lengths) + " | ratio |\n" + "| --- " * 4 + "|")
    good = True
    for recompute in ("light", "full", "none"):
        beside = []
        for t in a.lengths:
            plan, step = measure(a, model, "f32", 1, t, 0, recompute, steps=1)
            beside.append(step["peak_rss_bytes"] - plan["weights"] - plan["gradients"] - plan["states"])
        ratio = beside[1] / beside[0]
        good &= ratio < 2.2
        print(f"| {recompute} | " + " | ".join(f"{b / MIB:.0f}" for b in beside) +
              f" | {speed.mark(ratio, 2.2, True)} |", flush=True)
    return good


def adapter(a, size, most, steps):
    """One sample of 512 tokens through a quantized model of this size with an adapter of rank 8."""
    path = synth(a, f"{size}:q4_k_m", f"{size}-q4_k_m")
    good = True
    for precision in a.precision:
        plan, step = measure(a, path, precision, 1, 512, 8, "full", steps)
        peak = step["peak_rss_bytes"]
        good &= peak <= most and plan["planned_bytes"] <= most
        planned, measured = (speed.mark(n / GB, most / GB, True) for n in (plan["planned_bytes"], peak))
        parts = ", ".join(f"{k} {plan[k] / MIB:.0f}" for k in PLANNED)
        print(f"{size}:q4_k_m ({path.stat().st_size / GB:.2f} GB), rank 8, T = 512, {precision}, full recomputation: "
              f"planned {planned} GB, peak {measured} GB; {plan['trained']:,} parameters trained, "
              f"{step['seconds']:.1f} s per step, load {os.getloadavg()[0]:.1f}; planned MiB: {parts}", flush=True)
    return good


def small(a):
    return adapter(a, "1.3b", 3 * GB, 1)


def large(a):
    good = adapter(a, "12.8b", 12 * GB, 0)
    if not a.keep:
        (a.work / "12.8b-q4_k_m.gguf").unlink()
    return good


PARTS = {"lengths": lengths, "small": small, "large": large}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--geul", type=pathlib.Path, default=speed.ROOT / "build" / "geul")
    p.add_argument("--bench-train", type=pathlib.Path, default=speed.ROOT / "build" / "bench_train")
    p.add_argument("--work", type=pathlib.Path, default=pathlib.Path.home() / ".cache" / "geul" / "train-memory")
    p.add_argument("--only", type=lambda text: text.split(","), default=["lengths", "small"], help=", ".join(PARTS))
    p.add_argument("--lengths", type=lambda text: [int(n) for n in text.split(",")], default=[1024, 2048])
    p.add_argument("--precision", type=lambda text: text.split(","), default=["bf16"])
    p.add_argument("--keep", action="store_true", help="leaves the 12.8B file")
    a = p.parse_args()
    good = True
    for name in a.only:
        print(f"\n## {name}\n", flush=True)
        good &= PARTS[name](a)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
