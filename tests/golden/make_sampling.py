#!/usr/bin/env python3
"""Prints what transformers' warpers, in the order of its generate(), make of a few logits, for
tests/models/test_sampler.c:

    /opt/geul-py/bin/python tests/golden/make_sampling.py        (transformers 5.24.0, torch 2.15.0)

The logits are small fractions that the test makes again.
"""
import torch
from transformers import GenerationConfig, GPTNeoXConfig, GPTNeoXForCausalLM

V = 12
LOGITS = torch.tensor([[(i * 7 % 12) * 3 / 8 - i / 16 for i in range(V)]], dtype=torch.float32)
# temperature, top-k, top-p, min-p, typical-p
CASES = [
    (1.0, 0, 1.0, 0.0, 1.0),
    (0.5, 0, 0.8, 0.0, 1.0),
    (1.5, 0, 0.8, 0.0, 1.0),
    (2.0, 6, 0.7, 0.0, 1.0),
    (0.7, 0, 1.0, 0.1, 1.0),
    (1.8, 0, 1.0, 0.25, 1.0),
    (1.6, 0, 1.0, 0.0, 0.4),
    (0.6, 0, 1.0, 0.0, 0.5),
    (1.3, 8, 0.9, 0.2, 0.6),
    (0.8, 40, 0.95, 0.05, 1.0),
]

shape = dict(vocab_size=V, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
model = GPTNeoXForCausalLM(GPTNeoXConfig(**shape, bos_token_id=0, eos_token_id=0, pad_token_id=0))
for temperature, top_k, top_p, min_p, typical_p in CASES:
    config = GenerationConfig(do_sample=True, temperature=temperature, top_k=top_k, top_p=top_p,
                              min_p=min_p or None, typical_p=typical_p, max_new_tokens=1)
    config, _ = model._prepare_generation_config(config)
    model._prepare_special_tokens(config, device="cpu")
    warpers = model._get_logits_processor(config, input_ids_seq_length=1)
    p = warpers(torch.zeros((1, 1), dtype=torch.long), LOGITS.clone()).softmax(-1)[0].tolist()
    print(f"    {{{{{temperature:g}f, {top_k}, {top_p:g}f, {min_p:g}f, {typical_p:g}f}},".replace("{1f", "{1").replace(
        "{2f", "{2").replace(", 1f", ", 1").replace(", 0f", ", 0"))
    print("     {" + ", ".join(f"{v:.6f}".rstrip("0").rstrip(".") for v in p) + "}},")
