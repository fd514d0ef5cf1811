#!/usr/bin/env python3
"""Do the defaults of `geul finetune` teach, from 5 rows to 1,500?

    bench/training/few_rows.py --model MODEL.gguf [--rows 5,20,100,500,1500] [-- more options of finetune]

MODEL must not have been made from ChatbotData.csv: the table of docs/training.md has one that `geul train` made from
the petitions alone. Each run learns that many pairs with no option but files and template; 200 other pairs are for
evaluation. Asked are the questions that were learned, or 100 of them; greedy answers of at most 64 tokens count as
taught when they are the answer of the row (or of another row with that question), and as begun when their first three
syllables are. Prints a row of the table for each size.
"""
import argparse
import csv
import json
import pathlib
import random
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr.decode(errors='replace')[-3000:]}")
    return done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def write(path, pairs):
    path.write_text("".join(json.dumps({"question": q, "answer": x}, ensure_ascii=False) + "\n" for q, x in pairs))


def begins(text):
    return "".join(c for c in text if "가" <= c <= "힣")[:3]


def answered(a, adapter, pairs):
    """Shares of questions answered as taught, begun as taught, and ended by themselves."""
    taught = {}
    for q, x in pairs:
        taught.setdefault(q, set()).add(x.strip())
    asked = sorted(taught, key=lambda q: random.Random(q).random())[:100]
    exact = begun = ended = 0
    for q in asked:
        said = json.loads(run(a.geul, "complete", "-m", a.model, *(["--lora", adapter] if adapter else []), "-p", q,
                              "--template", "koalpaca", "--temp", "0", "-n", "64", "--json", "-t", a.threads)[0])
        exact += said["text"].strip() in taught[q]
        begun += begins(said["text"]) in {begins(x) for x in taught[q]}
        ended += said["stop_reason"] == "end_token"
    return [100 * n / len(asked) for n in (exact, begun, ended)]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=pathlib.Path, required=True)
    p.add_argument("--geul", type=pathlib.Path, default=ROOT / "build" / "geul")
    p.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared" / "data" / "chatbot" / "ChatbotData.csv")
    p.add_argument("--work", type=pathlib.Path, default=pathlib.Path.home() / ".cache" / "geul" / "few-rows")
    p.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",")], default=[5, 20, 100, 500, 1500])
    p.add_argument("-t", "--threads", type=int, default=2)
    p.add_argument("more", nargs="*", help="options of finetune")
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    with open(a.data, encoding="utf-8", newline="") as f:
        pairs = [(r["Q"], r["A"]) for r in csv.DictReader(f)]
    random.Random(7).shuffle(pairs)
    write(a.work / "measure.jsonl", pairs[:200])
    print("| rows | chosen | steps, time | held-out loss before, after | answered as taught before, after | begun as "
          "taught | ended by itself |\n| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for n in a.rows:
        learn, out = pairs[200:200 + n], a.work / f"run-{n}"
        write(a.work / f"learn-{n}.jsonl", learn)
        subprocess.run(["rm", "-rf", str(out)])
        start = time.time()
        said = run(a.geul, "finetune", "-m", a.model, "--train-file", a.work / f"learn-{n}.jsonl", "--eval-file",
                   a.work / "measure.jsonl", "--template", "koalpaca", "-o", out, "--sample-every", 0, "--eval-every",
                   0, "-t", a.threads, *a.more)[1]
        seconds = time.time() - start
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        losses = [r["loss"] for r in log if r["type"] == "evaluation"]
        steps = max(r["step"] for r in log if r["type"] == "step")
        chosen = "; ".join(s[8:].split(",")[0].split(":")[0].split(" (")[0] for s in said.splitlines()
                           if s.startswith("chosen: "))
        before, after = answered(a, None, learn), answered(a, out / "adapter.gguf", learn)
        print(f"| {n} | {chosen} | {steps}, {seconds:.0f} s | {losses[0]:.2f}, {losses[-1]:.2f} | "
              + " | ".join(f"{x:.0f} %, {y:.0f} %" for x, y in zip(before, after)) + " |", flush=True)


if __name__ == "__main__":
    main()
