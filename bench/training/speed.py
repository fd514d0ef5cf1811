#!/usr/bin/env python3
"""The speed and memory of training steps of geul compared with PyTorch's: one model, weights, ids and order of samples.

    bench/training/speed.py                          131M parameters, float32 and bfloat16
    bench/training/speed.py --precision f32 --find   first looks which of PyTorch's ways is fastest
    bench/training/speed.py --compile                a second peer, torch.compile

Both engines stay loaded in processes of their own with the same number of threads. They take turns, a few steps each,
and one sleeps while the other computes, so each ratio compares the same moment; figures are medians. geul's side is
bench_train, which measures what the machine can do before and after each step. The losses of both must agree, step by
step: otherwise they did not do the same work. Peak memory is VmHWM; PyTorch's begins after loading.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAUSE = 0.1  # seconds after which the threads of an engine that has answered sleep
MODEL = {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "bos_token_id": 2, "eos_token_id": 2,
         "hidden_act": "gelu", "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072,
         "layer_norm_eps": 1e-5, "max_position_embeddings": 2048, "num_attention_heads": 12, "num_hidden_layers": 12,
         "rotary_emb_base": 10000, "rotary_pct": 0.5, "tie_word_embeddings": False, "use_parallel_residual": True,
         "vocab_size": 30080, "torch_dtype": "float32"}
# Largest difference of losses that is rounding and no mistake: float32, bfloat16 (both round, in different places).
AGREE = {"f32": 1e-3, "bf16": 2e-2}
TARGETS = {"f32": 1.3, "bf16": 1.2}
MEMORY, SHARE = 0.60, 0.65


class Worker:
    """A process that takes as many steps as a line says and answers with a line of JSON for each."""

    def __init__(self, command, environment):
        self.command = [str(c) for c in command]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(self.command)} ended")
        return json.loads(line)

    def steps(self, n):
        time.sleep(PAUSE)
        self.process.stdin.write(f"{n}\n".encode())
        self.process.stdin.flush()
        return [self.read() for _ in range(n)]

    def close(self):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.wait()


def run(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.stderr.decode(errors="replace"))


def make_files(a):
    """The model as GGUF and as a Hugging Face directory, and ids; made when missing."""
    a.work.mkdir(parents=True, exist_ok=True)
    gguf, directory, ids = a.work / "model.gguf", a.work / "hf", a.work / f"ids-{a.context}.bin"
    if not gguf.exists():
        (a.work / "config.json").write_text(json.dumps(MODEL))
        run(a.geul, "synth", f"{a.work / 'config.json'}:f32", "-o", gguf)
    if not (directory / "config.json").exists():
        run(a.geul, "export", gguf, directory, "--type", "f32")
    if not ids.exists():  # frequencies like words': there is something to learn
        random = numpy.random.default_rng(1)
        drawn = random.zipf(1.3, size=400 * (a.context + 1)) * 7919 % MODEL["vocab_size"]
        drawn.astype("<i4").tofile(ids)
    return gguf, directory, ids


def environment(a):
    """Without what other programs need. --passive: threads that wait for others do not keep a core busy."""
    kept = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    kept["OMP_NUM_THREADS"] = str(a.threads)
    return dict(kept, OMP_WAIT_POLICY="passive") if a.passive else kept


def start_peer(a, precision, **options):
    _, directory, ids = make_files(a)
    settings = dict(model=str(directory), ids=str(ids), batch=a.batch, context=a.context, precision=precision,
                    threads=a.threads, **options)
    return Worker([a.python, HERE / "torch_trainer.py", json.dumps(settings)], environment(a))


def start_geul(a, precision, recompute):
    gguf, _, ids = make_files(a)
    worker = Worker([a.bench_train, gguf, precision, "-", a.batch, a.context, 0, ids, recompute],
                    environment(a))
    worker.plan = worker.read()
    return worker


def find(a, precision):
    """The one of PyTorch's ways that takes least CPU time, each measured in turn with the others; prints the figures."""
    ways = [{"attention": attention, "adamw": adamw}
            for attention, adamw in (("sdpa", "fused"), ("eager", "fused"), ("sdpa", "foreach"))]
    workers = [start_peer(a, precision, **way) for way in ways]
    for w in workers:
        w.read()
    steps = [[] for _ in ways]
    for _ in range(5):
        for w, s in zip(workers, steps):
            s += w.steps(1)
    for w in workers:
        w.close()
    times = {key: [statistics.median(r[key] for r in s) for s in steps] for key in ("seconds", "cpu_seconds")}
    for i, way in enumerate(ways):
        peak = max(r["peak_rss_bytes"] for r in steps[i]) / 2**20
        print(f"PyTorch {precision} {way['attention']} {way['adamw']}: {times['seconds'][i]:.3f} s, CPU time "
              f"{times['cpu_seconds'][i]:.3f} s, {peak:.0f} MiB", flush=True)
    return ways[min(range(len(ways)), key=lambda i: times["cpu_seconds"][i])]


def load():
    return "load " + " ".join(f"{x:.1f}" for x in os.getloadavg())


def compare(a, precision, way):
    """Steps in turns; a dictionary of figures, and the steps themselves."""
    workers = {f"geul {how}": start_geul(a, precision, how) for how in a.recompute}
    plans = {name: w.plan for name, w in workers.items()}
    workers["PyTorch"] = start_peer(a, precision, **way)
    if a.compile:
        workers["torch.compile"] = start_peer(a, precision, compile=True, **way)
    steps = {name: [w.read()] for name, w in workers.items()}
    loads = [os.getloadavg()[0]]
    for _ in range(a.rounds):
        for name, w in workers.items():
            steps[name] += w.steps(a.group)
        loads.append(os.getloadavg()[0])
    for w in workers.values():
        w.close()
    return {"precision": precision, "way": way, "steps": steps, "plans": plans, "loads": loads}


def per_turn(a, steps, key="seconds"):
    """Seconds per step of every turn, the first step (which takes the memory) left out."""
    s = [r[key] for r in steps[1:]]
    return [statistics.mean(s[i : i + a.group]) for i in range(0, len(s), a.group)]


def mark(value, target, at_most=False):
    missed = value > target if at_most else value < target
    return f"{value:.2f} ({'<=' if at_most else '>='} {target:g}{', missed' if missed else ''})"


def tell(a, result):
    """Prints the figures of one comparison, PyTorch's last; false when the losses do not agree."""
    steps, precision = result["steps"], result["precision"]
    theirs = steps["PyTorch"]
    turns, peak = per_turn(a, theirs), max(r["peak_rss_bytes"] for r in theirs)
    good = True
    print(f"\n## {precision}, {len(theirs) - 1} steps each, {a.threads} threads{', passive' if a.passive else ''}, "
          f"batch {a.batch} x {a.context}, PyTorch: {', '.join(map(str, result['way'].values()))}; "
          f"load {min(result['loads']):.1f} to {max(result['loads']):.1f}\n")
    print("| | s per step | low to high | tokens/s | faster than PyTorch by | low to high | share of the ceiling | "
          "peak MiB (planned) | share of PyTorch's | loss, first and last | losses differ by |\n" + "| --- " * 11 + "|")
    for name, mine in steps.items():
        seconds, memory = per_turn(a, mine), max(r["peak_rss_bytes"] for r in mine)
        ratios = [y / x for x, y in zip(seconds, turns)]
        apart = max(abs(x["loss"] - y["loss"]) for x, y in zip(mine, theirs))
        good &= apart <= AGREE[precision]
        ours, self = name in result["plans"], name == "PyTorch"
        ratio = statistics.median(ratios)
        cells = [name, f"{statistics.median(seconds):.3f}", f"{min(seconds):.3f} to {max(seconds):.3f}",
                 f"{mine[0]['tokens'] / statistics.median(seconds):.0f}",
                 "" if self else mark(ratio, TARGETS[precision]) if ours else f"{ratio:.2f}",
                 "" if self else f"{min(ratios):.2f} to {max(ratios):.2f}",
                 mark(statistics.median(r["share"] for r in mine[1:]), SHARE) if ours and precision == "f32" else
                 f"{statistics.median(r['share'] for r in mine[1:]):.2f}" if ours else "",
                 f"{memory / 2**20:.0f}" + (f" ({result['plans'][name]['planned_bytes'] / 2**20:.0f})" if ours else ""),
                 mark(memory / peak, MEMORY, True) if ours else f"{memory / peak:.2f}",
                 f"{mine[0]['loss']:.4f} {mine[-1]['loss']:.4f}",
                 "" if self else f"{apart:.1e}" + (", VOID" if apart > AGREE[precision] else "")]
        print("| " + " | ".join(cells) + " |")
    cpu = {name: statistics.median(per_turn(a, mine, "cpu_seconds")) for name, mine in steps.items()}
    ours = next(iter(steps.values()))
    ceilings = [r[precision + "_macs_per_s"] / 1e9 for r in ours]
    best = max(ceilings)
    print(f"\n{precision} ceiling: {statistics.median(ceilings):.0f} G multiply-adds/s, {min(ceilings):.0f} to "
          f"{best:.0f}")
    for name in steps:  # what other programs take away from both is not in these
        words = f"{name}: {cpu[name]:.2f} s of CPU time per step, PyTorch's / it {cpu['PyTorch'] / cpu[name]:.2f}"
        if name in result["plans"]:
            macs = statistics.median(r["macs_per_s"] * r["seconds"] for r in steps[name])
            share = macs / (cpu[name] / a.threads) / best / 1e9
            words += f"; if {a.threads} cores were its own, {share:.2f} of the best ceiling"
        print(words, flush=True)
    return good


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--geul", type=pathlib.Path, default=ROOT / "build" / "geul")
    p.add_argument("--bench-train", type=pathlib.Path, default=ROOT / "build" / "bench_train")
    p.add_argument("--python", default=sys.executable, help="one with torch and transformers")
    p.add_argument("--work", type=pathlib.Path, default=pathlib.Path.home() / ".cache" / "geul" / "train-131m")
    p.add_argument("--precision", type=lambda text: text.split(","), default=["f32", "bf16"])
    p.add_argument("--find", action="store_true", help="look for PyTorch's fastest way")
    p.add_argument("--attention", default="sdpa")
    p.add_argument("--adamw", default="fused")
    p.add_argument("--recompute", type=lambda text: text.split(","), default=["light"], help="light,full,none")
    p.add_argument("--compile", action="store_true", help="torch.compile too")
    p.add_argument("-b", "--batch", type=int, default=4)
    p.add_argument("-c", "--context", type=int, default=256)
    p.add_argument("-r", "--rounds", type=int, default=7)
    p.add_argument("-g", "--group", type=int, default=2, help="steps of a turn")
    p.add_argument("-t", "--threads", type=int, default=os.cpu_count())
    p.add_argument("--passive", action="store_true",
                   help="OMP_WAIT_POLICY=passive for both: CPU time without waiting, on a machine with others")
    p.add_argument("--json", type=pathlib.Path, help="every step into this file")
    a = p.parse_args()
    results, good = [], True
    for precision in a.precision:
        way = {"attention": a.attention, "adamw": a.adamw}
        if a.find:
            way = find(a, precision)
        results.append(compare(a, precision, way))
        good &= tell(a, results[-1])
    if a.json:
        a.json.write_text(json.dumps(results))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
