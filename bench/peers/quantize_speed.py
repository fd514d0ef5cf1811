#!/usr/bin/env python3
"""`geul quantize` and llama.cpp's llama_model_quantize on the same file, taking turns; prints seconds and ratios.

    bench/peers/quantize_speed.py 1.3b:f16 q4_k_m --rounds 3

The input is read once before, so that both find it in the page cache, and the outputs go to memory (/dev/shm): what is
compared is the work, not the disk. README.md here says how to build llama.cpp.
"""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import beside_llama as beside

# LLAMA_FTYPE numbers, as in general.file_type
FILE_TYPES = {"q4_0": 2, "q8_0": 7, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12, "q3_k_l": 13, "q4_k_s": 14, "q4_k_m": 15,
              "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "iq4_xs": 30}


def llama_once(source, target, kind, n_threads):
    """In the child process, whose Python has llama_cpp: seconds on stdout."""
    import ctypes
    import llama_cpp as L

    quiet = L.llama_log_callback(lambda level, text, user: None)
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    L.llama_backend_init()
    options = L.llama_model_quantize_default_params()
    options.ftype, options.nthread = FILE_TYPES[kind], n_threads
    start = time.perf_counter()
    if L.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(options)) != 0:
        sys.exit(f"llama.cpp cannot quantize {source}")
    print(json.dumps({"seconds": time.perf_counter() - start}))


def run(command):
    """What the command prints, and its seconds."""
    start = time.perf_counter()
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout, time.perf_counter() - start


def compare(a, path, kind, rounds, folder=None):
    """One row: seconds of both, sizes of both files."""
    run(["cat", path])
    folder = folder or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        mine, other = pathlib.Path(scratch) / "geul.gguf", pathlib.Path(scratch) / "llama.gguf"
        for _ in range(rounds):
            ours.append(run([a.geul, "quantize", path, mine, kind, "-t", a.threads])[1])
            done = run([a.venv / "bin" / "python", __file__, "--child", path, other, kind, a.threads])
            theirs.append(json.loads(done[0])["seconds"])
        sizes = mine.stat().st_size, other.stat().st_size
    return {"model": str(path), "types": kind, "geul_seconds": statistics.median(ours),
            "llama_seconds": statistics.median(theirs), "geul_bytes": sizes[0], "llama_bytes": sizes[1],
            "ratio": statistics.median(g / l for g, l in zip(ours, theirs)), "rounds": rounds}


def main():
    if "--child" in sys.argv[1:2]:
        llama_once(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
        return
    p = beside.options(__doc__)
    p.add_argument("model", help="a float GGUF file or SIZE:TYPE")
    p.add_argument("types", nargs="+", choices=sorted(FILE_TYPES))
    p.add_argument("--folder", help="where the outputs go for a moment (default /dev/shm)")
    a = p.parse_args()
    rows = [compare(a, beside.model_path(a.geul, a.model), kind, a.rounds, a.folder) for kind in a.types]
    if a.json:
        print(json.dumps(rows, indent=2))
        return
    print("| type | geul s | llama.cpp s | geul / llama.cpp | geul MiB | llama.cpp MiB |\n" + "| --- " * 6 + "|")
    for r in rows:
        print(f"| {r['types']} | {r['geul_seconds']:.1f} | {r['llama_seconds']:.1f} | {r['ratio']:.2f} | "
              f"{r['geul_bytes'] / 2**20:.1f} | {r['llama_bytes'] / 2**20:.1f} |")


if __name__ == "__main__":
    main()
