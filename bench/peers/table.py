#!/usr/bin/env python3
"""All of geul's figures of speed and memory, compared with llama.cpp's, in one run of about 7 minutes.

    bench/peers/table.py                     everything
    bench/peers/table.py --only types,deep   parts: types, deep, large, avx2, quantize; and, only when named,
                                             sequences, every
    bench/peers/table.py --json              every figure
    bench/peers/table.py --write docs/performance.md
                                             puts each part between its <!-- table.py: NAME --> and <!-- end -->

Random weights of `geul synth` (12.8B needs 8 GB of disk and 22 GB of memory for llama.cpp beside it; made on the first
call, not counted). Each figure is followed by what it has to reach. README.md here says how to build llama.cpp twice.
"""
import json
import pathlib
import statistics
import sys

import beside_llama as beside
import quantize_speed

# type: prompt ratio, prompt share, generation ratio, generation share: what has to be reached
TYPES = {
    "q4_0": (2.0, 0.55, 1.0, 0.85),
    "q4_k_m": (2.3, 0.50, 1.1, 0.85),
    "q8_0": (2.3, 0.55, 1.0, 0.90),
    "bf16": (1.5, 0.55, 1.0, 0.90),
}
SIZE, LARGE = "1.3b", "12.8b:q4_k_m"
PROMPT, TEXT = 256, 32
MIB = 2**20


def against(value, target, at_most=False):
    """"2.41 (>= 2.0)", with a mark when it is missed."""
    missed = value > target if at_most else value < target
    return f"{value:.2f} ({'<=' if at_most else '>='} {target:g}{', missed' if missed else ''})"


def types(a):
    """Prompt and generation of four types."""
    rows = {}
    for kind in TYPES:
        rows[kind] = beside.compare(a, beside.model_path(a.geul, f"{SIZE}:{kind}"),
                                    [(PROMPT, 0, 0), (0, TEXT, 0)], a.rounds)
    lines = ["| | " + " | ".join(TYPES) + " |", "| --- " * (len(TYPES) + 1) + "|"]
    wanted = (("prompt: ratio to llama.cpp", 0, "ratio"), ("prompt: share of the ceiling", 0, "share"),
              ("generation: ratio to llama.cpp", 1, "ratio"), ("generation: share of the read bandwidth", 1, "share"))
    for i, (name, test, key) in enumerate(wanted):
        lines.append(f"| {name} | " + " | ".join(against(rows[k][test][key], TYPES[k][i]) for k in TYPES) + " |")
    lines += ["", beside.HEADER]
    lines += [beside.line(row, f"{SIZE} {kind}") for kind in TYPES for row in rows[kind]]
    every = [row for kind in TYPES for row in rows[kind]]
    return every, lines + ["", beside.ceilings_line(every)]


def kept(a, path, short, long):
    """Speed of test long over that of test short (n_prompt, n_generate, depth), turn by turn."""
    workers = []
    for p, n, d in (short, long):
        workers.append(beside.Worker([a.geul, "bench", "-m", path, "-t", a.threads, "-p", p, "-n", n, "-d", d,
                                      "-r", a.rounds + 1, "--step"]))
        workers[-1].ask("")  # the first turn is not counted: when it is over, this one is loaded and sleeps
    turns = [[w.ask("") for w in workers] for _ in range(a.rounds)]
    for w in workers:
        w.close()
    rows = [beside.summary([t[i] for t in turns], []) for i in range(2)]
    return rows, statistics.median(t[1]["tokens_per_s"] / t[0]["tokens_per_s"] for t in turns)


def deep(a):
    """What long prompts and deep caches cost; geul alone."""
    path = beside.model_path(a.geul, f"{SIZE}:q4_k_m")
    prompts, prompt = kept(a, path, (PROMPT, 0, 0), (2048, 0, 0))
    texts, text = kept(a, path, (0, TEXT, 0), (0, TEXT, 2000))
    lines = [f"prompt 2048 / prompt {PROMPT}, q4_k_m: {against(prompt, 0.85)}",
             f"generation at depth 2000 / at depth 0, q4_k_m, f16 cache: {against(text, 0.80)}", "", beside.HEADER]
    return prompts + texts, lines + [beside.line(row, f"{SIZE} q4_k_m") for row in prompts + texts]


def large(a):
    """12.8B: speed and memory."""
    rows = beside.compare(a, beside.model_path(a.geul, LARGE), [(64, 0, 0), (0, 8, 0)], a.rounds)
    over = max(r["geul_over_bytes"] for r in rows) / MIB
    lines = [f"{LARGE} prompt 64, ratio to llama.cpp: {against(rows[0]['ratio'], 1.8)}",
             f"{LARGE} generation, ratio to llama.cpp: {against(rows[1]['ratio'], 1.0)}",
             f"{LARGE} resident MiB over file + cache: {against(over, 250, at_most=True)}", "", beside.HEADER]
    return rows, lines + [beside.line(row, LARGE) for row in rows]


def avx2(a):
    """geul capped to AVX2 against llama.cpp built without AVX-512."""
    if not a.venv_avx2.exists():
        return [], [f"{a.venv_avx2} is not there: no comparison without AVX-512"]
    capped = type(a)(**dict(vars(a), cap="avx2", venv=a.venv_avx2))
    rows = {}
    for kind in ("q4_0", "q4_k_m", "q8_0"):
        rows[kind] = beside.compare(capped, beside.model_path(a.geul, f"{SIZE}:{kind}"), [(PROMPT, 0, 0)], a.rounds)[0]
    lines = [f"GEUL_CPU=avx2, prompt {PROMPT} {kind}, ratio to llama.cpp without AVX-512: {against(r['ratio'], 1.3)}"
             for kind, r in rows.items()]
    lines += ["", beside.HEADER] + [beside.line(row, f"{SIZE} {kind}") for kind, row in rows.items()]
    return list(rows.values()), lines


def quantize(a):
    """Time to make Q4_K_M from float16."""
    row = quantize_speed.compare(a, beside.model_path(a.geul, f"{SIZE}:f16"), "q4_k_m", 1)
    return [row], [f"geul quantize {SIZE} f16 to q4_k_m: {row['geul_seconds']:.1f} s, llama.cpp "
                   f"{row['llama_seconds']:.1f} s, share {against(row['ratio'], 0.5, at_most=True)}; "
                   f"{row['geul_bytes'] / MIB:.1f} and {row['llama_bytes'] / MIB:.1f} MiB"]


def bench(a, *options):
    """The table that geul bench prints, for parts without a peer."""
    output, _ = quantize_speed.run([a.geul, "bench", "-t", a.threads, "-r", a.rounds, *options])
    return [], ["```", *output.decode().rstrip().split("\n"), "```"]


def sequences(a):
    """Several sequences at once; geul alone."""
    return bench(a, "-m", beside.model_path(a.geul, f"{SIZE}:q4_k_m"), "-p", 0, "-n", TEXT, "--parallel", "1,2,4,8,16")


def every(a):
    """Every kind of type; geul alone."""
    kinds = ("q2_k", "q3_k_m", "q4_0", "iq4_xs", "q4_k_m", "q5_k_m", "q6_k", "q8_0", "bf16", "f16")
    files = [x for kind in kinds for x in ("-m", beside.model_path(a.geul, f"{SIZE}:{kind}"))]
    return bench(a, *files, "-p", PROMPT, "-n", TEXT)


PARTS = {"types": types, "deep": deep, "large": large, "avx2": avx2, "quantize": quantize, "sequences": sequences,
         "every": every}
USUAL = ("types", "deep", "large", "avx2", "quantize")


def put_into(path, name, lines):
    """Replaces the text between the marks of that part."""
    text = path.read_text()
    begin, end = f"<!-- table.py: {name} -->\n", "<!-- end -->"
    if begin not in text:
        sys.exit(f"{path} has no line {begin.strip()}")
    at = text.index(begin) + len(begin)
    body = "\n" + "\n".join(lines) + "\n\n"
    path.write_text(text[:at] + body + text[text.index(end, at):])


def main():
    p = beside.options(__doc__)
    p.add_argument("--venv-avx2", type=pathlib.Path, default=pathlib.Path("/opt/peer-avx2/venv"))
    p.add_argument("--only", type=lambda text: text.split(","), default=USUAL, help=", ".join(PARTS))
    p.add_argument("--write", type=pathlib.Path, help="also into this Markdown file")
    a = p.parse_args()
    result = {}
    for name in a.only:
        if name not in PARTS:
            sys.exit(f"{name} is no part; possible are {', '.join(PARTS)}")
        result[name], lines = PARTS[name](a)
        if a.write:
            put_into(a.write, name, lines)
        if not a.json:
            print(f"## {name}: {PARTS[name].__doc__}\n\n" + "\n".join(lines) + "\n", flush=True)
    if a.json:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
