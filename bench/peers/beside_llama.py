#!/usr/bin/env python3
"""geul and llama.cpp on the same GGUF files, taking turns; prints medians, shares of the ceilings and ratios.

    bench/peers/beside_llama.py 1.3b:q8_0 model.gguf -p 256,2048 -n 32 -d 0,2000
    bench/peers/beside_llama.py 1.3b:q4_k_m --cap avx2 --venv /opt/peer-avx2/venv

Files are GGUF files or SIZE:TYPE of `geul synth`, random weights kept in $GEUL_CACHE or ~/.cache/geul. Both engines stay
loaded with the same number of threads, and one sleeps while the other computes: each repetition runs geul and then
llama.cpp, so the ratio of a repetition compares the same moment. README.md here says how to build llama.cpp.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAUSE = 0.05  # seconds after which the threads of an engine that has answered sleep


class Worker:
    """A process that answers each line with a line of JSON."""

    def __init__(self, command, environment=None):
        self.command = [str(c) for c in command]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=environment)

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            error = self.process.stderr.read().decode(errors="replace").strip()
            sys.exit(f"{' '.join(self.command)}\n{error[-2000:]}")
        return json.loads(line)

    def ask(self, text):
        time.sleep(PAUSE)
        self.process.stdin.write((text + "\n").encode())
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.wait()


def model_path(geul, spec):
    """The file of a SIZE:TYPE, made when it is missing; a path as it is."""
    if os.path.exists(spec) or ":" not in spec:
        return pathlib.Path(spec)
    done = subprocess.run([geul, "bench", "--synthetic", spec, "-p", "1", "-n", "0", "-r", "1", "--json"],
                          stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.returncode)
    return pathlib.Path(json.loads(done.stdout)["cells"][0]["model"])


def summary(ours, theirs):
    """One row of figures from the repetitions of one test; theirs may be empty."""
    speeds = [r["tokens_per_s"] for r in ours]
    row = {key: ours[0][key] for key in ("model", "types", "test", "n_prompt", "n_generate", "depth", "bound")}
    row.update(geul=statistics.median(speeds), geul_low=min(speeds), geul_high=max(speeds),
               share=statistics.median(r["share"] for r in ours),
               geul_peak_rss_bytes=max(r["peak_rss_bytes"] for r in ours),
               geul_over_bytes=max(r["peak_over_bytes"] for r in ours))
    for name in ("read_bytes", "int8_macs", "bf16_macs", "f32_macs"):
        row[f"ceiling_{name}_per_s"] = statistics.median(r[f"ceiling_{name}_per_s"] for r in ours)
    if theirs:
        speeds = [r["tokens_per_s"] for r in theirs]
        ratios = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(ours, theirs)]
        row.update(llama=statistics.median(speeds), llama_low=min(speeds), llama_high=max(speeds),
                   ratio=statistics.median(ratios), ratio_low=min(ratios), ratio_high=max(ratios),
                   llama_peak_rss_bytes=max(r["peak_rss_bytes"] for r in theirs))
    return row


def compare(a, path, tests, rounds, peer=True):
    """Rows for a model; tests: (n_prompt, n_generate, depth). With peer False geul runs alone."""
    theirs = None
    if peer:
        longest = max(p + n + d for p, n, d in tests)
        theirs = Worker([a.venv / "bin" / "python", HERE / "llama_worker.py", path, a.threads, max(512, longest)])
        theirs.read()
    rows = []
    environment = dict(os.environ, GEUL_CPU=a.cap) if a.cap else None
    for n_prompt, n_generate, depth in tests:
        ours = Worker([a.geul, "bench", "-m", path, "-t", a.threads, "-p", n_prompt, "-n", n_generate, "-d", depth,
                       "-r", rounds, "--step"], environment)
        request = json.dumps({"n_prompt": n_prompt, "n_generate": n_generate, "depth": depth})
        pairs = []
        for _ in range(rounds):
            mine = ours.ask("")
            pairs.append((mine, theirs.ask(request) if theirs else None))
        ours.close()
        rows.append(summary([x for x, _ in pairs], [y for _, y in pairs if y]))
    if theirs:
        theirs.close()
    return rows


HEADER = ("| model | test | geul t/s | low to high | share of ceiling | llama.cpp t/s | low to high | ratio | "
          "geul peak MiB (over file + cache) | llama.cpp peak MiB |\n" + "| --- " * 10 + "|")


def line(row, name):
    """A row of the Markdown table."""
    mib = 2**20
    cells = [name, row["test"], f"{row['geul']:.1f}", f"{row['geul_low']:.1f} to {row['geul_high']:.1f}",
             f"{100 * row['share']:.0f} % {row['bound']}"]
    if "llama" in row:
        cells += [f"{row['llama']:.1f}", f"{row['llama_low']:.1f} to {row['llama_high']:.1f}", f"{row['ratio']:.2f}"]
    else:
        cells += ["-", "-", "-"]
    cells.append(f"{row['geul_peak_rss_bytes'] / mib:.0f} ({row['geul_over_bytes'] / mib:+.0f})")
    cells.append(f"{row['llama_peak_rss_bytes'] / mib:.0f}" if "llama" in row else "-")
    return "| " + " | ".join(cells) + " |"


def ceilings_line(rows):
    """What the machine could do, lowest to highest over the rows."""
    parts = []
    for key, name in (("read_bytes", "memory GB/s"), ("int8_macs", "int8 G multiply-adds/s"), ("bf16_macs", "bf16"),
                      ("f32_macs", "f32")):
        values = [r[f"ceiling_{key}_per_s"] * 1e-9 for r in rows]
        parts.append(f"{name} {min(values):.0f} to {max(values):.0f}")
    return "Ceilings: " + ", ".join(parts)


def options(description):
    """The options that the scripts here share."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--geul", type=pathlib.Path, default=ROOT / "build" / "geul")
    p.add_argument("--venv", type=pathlib.Path, default=pathlib.Path("/opt/peer/venv"), help="the Python of llama.cpp")
    p.add_argument("-r", "--rounds", type=int, default=5)
    p.add_argument("-t", "--threads", type=int, default=os.cpu_count())
    p.add_argument("--cap", help="GEUL_CPU for geul, for instance avx2")
    p.add_argument("--json", action="store_true", help="every figure as JSON instead of the table")
    return p


def numbers(text):
    return [int(n) for n in text.split(",")]


def main():
    p = options(__doc__)
    p.add_argument("models", nargs="*", default=["1.3b:q8_0"], help="GGUF files or SIZE:TYPE")
    p.add_argument("-p", "--prompt", type=numbers, default=[256])
    p.add_argument("-n", "--generate", type=numbers, default=[32])
    p.add_argument("-d", "--depth", type=numbers, default=[0])
    a = p.parse_args()
    tests = [(n, 0, d) for d in a.depth for n in a.prompt if n] + [(0, n, d) for d in a.depth for n in a.generate if n]
    rows = []
    if not a.json:
        print(f"{a.threads} threads, medians of {a.rounds} turns\n\n{HEADER}", flush=True)
    for spec in a.models:
        for row in compare(a, model_path(a.geul, spec), tests, a.rounds):
            rows.append(row)
            if not a.json:
                print(line(row, os.path.basename(spec)), flush=True)
    print(json.dumps(rows, indent=2) if a.json else "\n" + ceilings_line(rows))


if __name__ == "__main__":
    main()
