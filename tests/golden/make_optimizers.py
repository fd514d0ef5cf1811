#!/usr/bin/env python3
"""Prints what torch's optimizers make of a few weights, for tests/backends/test_cpu_optimizers.c:

    /opt/geul-py/bin/python tests/golden/make_optimizers.py        (torch 2.15.0)

Weights and gradients are small fractions that the test makes again.
"""
import torch

STEPS = 4


def weight(shape):
    n = torch.Size(shape).numel()
    return torch.tensor([(i * 37 % 19 - 9) / 8 for i in range(n)], dtype=torch.float32).reshape(shape)


def gradient(shape, step):
    n = torch.Size(shape).numel()
    return torch.tensor([(i * 23 + step * 11) % 17 / 16 - 0.5 for i in range(n)], dtype=torch.float32).reshape(shape)


def train(make, shape):
    w = torch.nn.Parameter(weight(shape))
    optimizer = make([w])
    for step in range(1, STEPS + 1):
        w.grad = gradient(shape, step)
        optimizer.step()
    return w.detach().flatten().tolist()


CASES = [
    ("adamw", (3, 4), lambda p: torch.optim.AdamW(p, lr=0.05, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)),
    ("sgd", (3, 4), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1)),
    ("adafactor_matrix", (3, 4), lambda p: torch.optim.Adafactor(p, lr=0.05, beta2_decay=-0.8, eps=(None, 1e-3),
                                                                 d=1.0, weight_decay=0.1)),
    ("adafactor_vector", (12,), lambda p: torch.optim.Adafactor(p, lr=0.05, beta2_decay=-0.8, eps=(None, 1e-3),
                                                                d=1.0, weight_decay=0.1)),
]

for name, shape, make in CASES:
    print(f"/* {name} */ {{" + ", ".join(f"{v:.9g}" for v in train(make, shape)) + "},")
