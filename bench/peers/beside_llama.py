#!/usr/bin/env python3
"""geul beside llama.cpp on the same GGUF files, in alternation; prints medians and ratios.

    python3 -m venv /tmp/peer && /tmp/peer/bin/pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36
    /tmp/peer/bin/python bench/peers/beside_llama.py 1.3b:q8_0 1.3b:q4_0 [--rounds 5] [--prompt 256] [--generate 32]

llama-cpp-python is built from its PyPI source for this machine's own processor (10 to 20 minutes on 2 cores). The files
are `geul synth` ones, random weights of the named shape, kept in $GEUL_CACHE or ~/.cache/geul. Each round runs one
engine after the other in a process of its own, with a warm-up; both read the file from the page cache.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
GEUL = ROOT / "build" / "geul"


def llama_once(path, n_prompt, n_generate, n_threads):
    """In the child process: prompt and generation tokens/s of llama.cpp, as JSON on stdout."""
    import random
    import time
    import llama_cpp as L

    L.llama_backend_init()
    options = L.llama_model_default_params()
    options.n_gpu_layers = 0
    model = L.llama_model_load_from_file(path.encode(), options)
    if not model:
        sys.exit(f"llama.cpp cannot load {path}")
    options = L.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = max(512, n_prompt + n_generate)
    options.n_threads = options.n_threads_batch = n_threads
    context = L.llama_init_from_model(model, options)
    ids = random.Random(1)

    def run(n):
        tokens = (L.llama_token * n)(*[ids.randrange(30000) for _ in range(n)])
        start = time.perf_counter()
        if L.llama_decode(context, L.llama_batch_get_one(tokens, n)) != 0:
            sys.exit("llama.cpp failed to compute a batch")
        L.llama_get_logits_ith(context, -1)
        return time.perf_counter() - start

    run(16)
    L.llama_memory_clear(L.llama_get_memory(context), True)
    prompt = n_prompt / run(n_prompt)
    generation = n_generate / sum(run(1) for _ in range(n_generate))
    print(json.dumps({"prompt_tps": prompt, "generation_tps": generation}))


def child(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(done.stderr.decode(errors="replace")[-2000:])
    return json.loads(done.stdout)


def compare(spec, a):
    cache = pathlib.Path(os.environ.get("GEUL_CACHE") or pathlib.Path.home() / ".cache" / "geul")
    path = cache / f"synthetic-{spec.replace(':', '-')}.gguf"
    sizes = ["-p", str(a.prompt), "-n", str(a.generate), "-t", str(a.threads)]
    ours, theirs = [], []
    for _ in range(a.rounds):
        ours.append(child([GEUL, "bench", "--synthetic", spec, *sizes, "-r", "1", "--json"]))
        theirs.append(child([sys.executable, __file__, "--child", path, *sizes]))
    row = [spec]
    for key in ("prompt_tps", "generation_tps"):
        g, l = (statistics.median(r[key] for r in runs) for runs in (ours, theirs))
        ratio = statistics.median(x[key] / y[key] for x, y in zip(ours, theirs))
        row += [f"{g:.1f}", f"{l:.1f}", f"{ratio:.2f}"]
    row.append(f"{max(r['peak_rss_bytes'] - r['file_bytes'] - r['kv_cache_bytes'] for r in ours) / 2**20:.0f}")
    return row


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("specs", nargs="*", default=["1.3b:q8_0"], help="SIZE:TYPE as for `geul synth`")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("-p", "--prompt", type=int, default=256)
    p.add_argument("-n", "--generate", type=int, default=32)
    p.add_argument("-t", "--threads", type=int, default=os.cpu_count())
    p.add_argument("--child", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.child:
        llama_once(a.child, a.prompt, a.generate, a.threads)
        return
    print(f"prompt {a.prompt}, generation {a.generate}, {a.threads} threads, medians of {a.rounds} alternating rounds\n")
    print("| model | geul prompt t/s | llama.cpp | ratio | geul generation t/s | llama.cpp | ratio |"
          " geul: peak memory over file + cache, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for spec in a.specs:
        print("| " + " | ".join(compare(spec, a)) + " |", flush=True)


if __name__ == "__main__":
    main()
