#!/usr/bin/env python3
"""Write peft_plain/ and peft_patterns/: LoRA adapters of the golden `parallel` as Hugging Face's PEFT saves them, with
the logits that transformers and PEFT compute with them.

    /opt/geul-py/bin/pip install peft==0.21.2
    /opt/geul-py/bin/python tests/golden/make_peft.py

A and B are random; a second run writes the same bytes. Made with peft 0.21.2, transformers 5.24.0, torch 2.15.0.
"""
import os

os.environ.update(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

import json
import shutil

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

import make

TARGETS = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
CASES = {
    "peft_plain": dict(r=4, lora_alpha=8),
    # Everything that gives modules different ranks and scales, and torch.save()'s form.
    "peft_patterns": dict(r=4, lora_alpha=8, use_rslora=True,
                          rank_pattern={"dense": 2, r"layers\.1\.mlp\.dense_h_to_4h": 6},
                          alpha_pattern={"query_key_value": 3, r"layers\.[1-9]\.attention\.dense": 5}),
}


def fill(model, seed):
    """Random A and B that move logits about as much as the model itself spreads them."""
    rng = np.random.default_rng(seed)
    for name, p in sorted(model.named_parameters()):
        if "lora_" in name:
            p.data = torch.tensor(rng.standard_normal(p.shape) * 0.25, dtype=torch.float32)


@torch.no_grad()
def make_case(name, c, seed):
    folder = os.path.join(make.HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    base = make.load(os.path.join(make.HERE, "parallel"))
    tokens = np.load(os.path.join(make.HERE, "parallel", "tokens.npy")).tolist()
    before = base(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].numpy()
    base.name_or_path = base.config._name_or_path = "golden/parallel"  # no path of this machine
    model = get_peft_model(base, LoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM", **c)).eval()
    fill(model, seed)
    logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].numpy()
    model.save_pretrained(folder, safe_serialization=name == "peft_plain")
    if name != "peft_plain":  # newer versions write safetensors whatever they are told
        path = os.path.join(folder, "adapter_model.safetensors")
        if os.path.exists(path):
            from safetensors.torch import load_file
            torch.save(load_file(path), os.path.join(folder, "adapter_model.bin"))
            os.remove(path)
    if os.path.exists(os.path.join(folder, "README.md")):
        os.remove(os.path.join(folder, "README.md"))
    config = os.path.join(folder, "adapter_config.json")
    with open(config, encoding="utf-8") as f:
        settings = json.load(f)
    settings["target_modules"] = sorted(settings["target_modules"])  # a set: its order differs from run to run
    make.write_json(config, settings)
    make.save_npy(os.path.join(folder, "logits.npy"), logits, np.float32)
    for file in os.listdir(folder):
        os.chmod(os.path.join(folder, file), 0o644)
    print(f"{name}: logits {logits.min():.2f}..{logits.max():.2f}, moved by up to {np.abs(logits - before).max():.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for i, (name, c) in enumerate(CASES.items()):
        make_case(name, c, 700 + i)
