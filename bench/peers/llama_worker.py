#!/usr/bin/env python3
"""llama.cpp with one model, measuring on request: a line of JSON in, a line of JSON out.

    VENV/bin/python llama_worker.py MODEL THREADS CONTEXT
    {"n_prompt": 256, "n_generate": 0, "depth": 0}   ->   {"tokens_per_s": 123.4, "peak_rss_bytes": 1234}

Between two requests it sleeps. Settings are llama-bench's: batch 2048, ubatch 512, float16 cache, memory map, and the
repacking of weights that llama.cpp does by itself. Started by beside_llama.py with the Python that has llama_cpp.
"""
import ctypes
import json
import random
import resource
import sys
import time

import llama_cpp as L


class Engine:
    def __init__(self, path, n_threads, n_context):
        self.quiet = L.llama_log_callback(lambda level, text, user: None)
        L.llama_log_set(self.quiet, ctypes.c_void_p(0))
        L.llama_backend_init()
        start = time.perf_counter()
        options = L.llama_model_default_params()
        options.n_gpu_layers = 0
        model = L.llama_model_load_from_file(path.encode(), options)
        if not model:
            sys.exit(f"llama.cpp cannot load {path}")
        options = L.llama_context_default_params()
        options.n_ctx = n_context
        options.n_batch, options.n_ubatch = 2048, 512
        options.n_threads = options.n_threads_batch = n_threads
        self.context = L.llama_init_from_model(model, options)
        if not self.context:
            sys.exit(f"llama.cpp has no context of {n_context} tokens for {path}")
        self.memory = L.llama_get_memory(self.context)
        self.random = random.Random(1)
        self.length = 0
        self.load_seconds = time.perf_counter() - start
        self.append(32)
        self.append(1)

    def append(self, n):
        """Seconds for n more tokens in one batch, with the logits of the last."""
        tokens = (L.llama_token * n)(*[self.random.randrange(30000) for _ in range(n)])
        start = time.perf_counter()
        if L.llama_decode(self.context, L.llama_batch_get_one(tokens, n)) != 0:
            sys.exit("llama.cpp failed to compute a batch")
        L.llama_get_logits_ith(self.context, -1)
        self.length += n
        return time.perf_counter() - start

    def rewind(self, depth):
        L.llama_memory_seq_rm(self.memory, 0, depth, -1)
        self.length = min(self.length, depth)
        while self.length < depth:
            self.append(min(512, depth - self.length))

    def measure(self, n_prompt, n_generate, depth):
        self.rewind(depth)
        if n_prompt:
            return n_prompt / self.append(n_prompt)
        return n_generate / sum(self.append(1) for _ in range(n_generate))


def main():
    engine = Engine(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps({"load_seconds": engine.load_seconds}), flush=True)
    for line in sys.stdin:
        tps = engine.measure(**json.loads(line))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"tokens_per_s": tps, "peak_rss_bytes": peak}), flush=True)


if __name__ == "__main__":
    main()
