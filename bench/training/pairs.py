#!/usr/bin/env python3
"""An adapter learns question/answer pairs: does it answer better, and does it stop by itself?

    bench/training/pairs.py [--epochs 2] [--models mini,petitions]

`geul finetune` with the pairs of ChatbotData.csv in the koalpaca template, for two models: share/geul-mini.gguf, which
learned these pairs when it was made, and the model that parity.py trained on petitions, which never saw a question.
Held out are the pairs that tools/train_mini.py held out when geul-mini was made: neither model has seen them. Loss is
that of the answers' tokens, <|endoftext|> included; answers are greedy, at most 64 tokens.
"""
import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import train_mini  # noqa: E402


def run(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr.decode(errors='replace')[-3000:]}")
    return done.stdout


def make_files(a):
    """learn.jsonl and measure.jsonl; the pairs of the second."""
    a.work.mkdir(parents=True, exist_ok=True)
    learn, held = train_mini.split_pairs(train_mini.load_pairs(a.data), train_mini.hand_written_pairs())
    for name, pairs in (("learn", learn), ("measure", held)):
        (a.work / f"{name}.jsonl").write_text(
            "".join(json.dumps({"question": q, "answer": x}, ensure_ascii=False) + "\n" for q, x in pairs))
    return learn, held


def answers(a, model, held, adapter):
    """The answers to the first questions: (stopped by itself, text) of each. Questions are spread over all."""
    result = []
    for q, _ in held[:: max(1, len(held) // a.questions)][: a.questions]:
        said = json.loads(run(a.geul, "complete", "-m", model, *(["--lora", adapter] if adapter else []), "-p", q,
                              "--template", "koalpaca", "--temp", "0", "-n", "64", "--json", "-t", a.threads))
        result.append((said["stop_reason"] == "end_token", q, said["text"]))
    return result


def finetune(a, name, model, held):
    """Fine-tunes a model and prints a row and some answers."""
    output = a.work / name
    subprocess.run(["rm", "-rf", str(output)])
    run(a.geul, "finetune", "-m", model, "--train-file", a.work / "learn.jsonl", "--eval-file",
        a.work / "measure.jsonl", "--template", "koalpaca", "-o", output, "--epochs", a.epochs, "-c", a.context,
        "-b", a.batch, "-r", a.rank, "--lr", a.rate, "--sample-every", 0, "-t", a.threads, "-s", 1)
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    losses = [(r["step"], r["loss"]) for r in log if r["type"] == "evaluation"]
    before, after = answers(a, model, held, None), answers(a, model, held, output / "adapter.gguf")
    stopped = [100 * sum(s for s, _, _ in rows) / len(rows) for rows in (before, after)]
    rows = [f"| {name} | {losses[0][1]:.4f} | {losses[-1][1]:.4f} | {min(loss for _, loss in losses):.4f} | "
            f"{stopped[0]:.0f} % | {stopped[1]:.0f} % | {losses[-1][0]} |"]
    said = [f"{name}: {q} -> {x.strip()[:60]!r} before, {y.strip()[:60]!r} after"
            for (_, q, x), (_, _, y) in list(zip(before, after))[:: max(1, a.questions // 5)]]
    return rows, said, losses[-1][1] < losses[0][1] - a.falls[name] and stopped[1] >= 90


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--geul", type=pathlib.Path, default=ROOT / "build" / "geul")
    p.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared" / "data" / "chatbot" / "ChatbotData.csv")
    cache = pathlib.Path.home() / ".cache" / "geul"
    p.add_argument("--work", type=pathlib.Path, default=cache / "train-pairs")
    p.add_argument("--petitions", type=pathlib.Path, default=cache / "train-petitions" / "geul-f32" / "model.gguf",
                   help="what parity.py made")
    p.add_argument("--models", type=lambda text: text.split(","), default=["mini", "petitions"])
    p.add_argument("--epochs", type=float, default=2)
    p.add_argument("--questions", type=int, default=100)
    p.add_argument("-r", "--rank", type=int, default=16)
    p.add_argument("--rate", type=float, default=2e-3)
    p.add_argument("-c", "--context", type=int, default=256)
    p.add_argument("-b", "--batch", type=int, default=8)
    p.add_argument("-t", "--threads", type=int, default=2)
    a = p.parse_args()
    a.falls = {"mini": -0.05, "petitions": 1.0}  # nats that the loss has to fall by; mini must not get much worse
    if not a.data.exists():
        print(f"skipped: {a.data} is not there")
        return
    models = {"mini": ROOT / "share" / "geul-mini.gguf", "petitions": a.petitions}
    learn, held = make_files(a)
    print(f"{len(learn)} pairs to learn, {len(held)} held out; rank {a.rank}, {a.epochs:g} epochs\n\n"
          "| model | held-out loss before | after | best | stops by itself before | after | steps |\n"
          + "| --- " * 7 + "|", flush=True)
    good, said = True, []
    for name in a.models:
        if not models[name].exists():
            print(f"| {name} | skipped: {models[name]} is not there |" + " |" * 5)
            continue
        rows, more, fine = finetune(a, name, models[name], held)
        print("\n".join(rows), flush=True)
        said += more
        good &= fine
    print("\n" + "\n".join(said))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
