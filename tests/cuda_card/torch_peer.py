#!/usr/bin/env python3
"""transformers' GPT-NeoX in bfloat16 with sdpa on the card, with random weights: prompts and generation.

    torch_peer.py SIZE PROMPTS GENERATE DEPTH     (1.3b or 12.8b; 128,512,2048; 32; 2000)

Prints a line of JSON for every figure: the median of 5 after a warm-up. Generation feeds one token at a time with a
cache, as generate() does, without choosing tokens: what is measured is the model.
"""
import json
import statistics
import sys
import time

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

SHAPES = {"1.3b": (2048, 24, 16), "12.8b": (5120, 40, 40)}  # width, layers, heads
ROUNDS = 5


def make(size):
    width, layers, heads = SHAPES[size]
    config = GPTNeoXConfig(vocab_size=30080, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
                           intermediate_size=4 * width, rotary_pct=64 / (width // heads), max_position_embeddings=4096,
                           attn_implementation="sdpa")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = GPTNeoXForCausalLM(config)
    return model.eval()


def timed(work):
    work()
    times = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@torch.inference_mode()
def main():
    size, prompts, generate, depth = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3]), int(sys.argv[4])
    model = make(size)
    ids = torch.randint(0, 30000, (1, 4096), device="cuda")

    for n in map(int, prompts):
        seconds = timed(lambda: model(ids[:, :n], logits_to_keep=1))
        print(json.dumps({"n_prompt": n, "n_generate": 0, "tokens_per_s": n / seconds}), flush=True)
    for start in (1, depth):
        def decode():
            cache = model(ids[:, :start], use_cache=True, logits_to_keep=1).past_key_values
            torch.cuda.synchronize()
            began = time.perf_counter()
            for i in range(generate):
                at = start + i
                cache = model(ids[:, at:at + 1], past_key_values=cache, use_cache=True).past_key_values
            torch.cuda.synchronize()
            return time.perf_counter() - began
        decode()
        seconds = statistics.median(decode() for _ in range(ROUNDS))
        print(json.dumps({"n_prompt": 0, "n_generate": generate, "depth": 0 if start == 1 else depth,
                          "tokens_per_s": generate / seconds}), flush=True)


main()
