#!/usr/bin/env python3
"""Check adapters against other readers and writers of their formats: tests/convert/check_peft_files.py [--geul GEUL]

On the golden `parallel` and the adapters made by tests/golden/make_peft.py:
1. what geul exports PEFT loads, without a missing or unexpected tensor, and transformers then computes the logits that it
   computed with the original (1e-5 of their range), also after PEFT has merged it;
2. what geul merges and exports gives those logits without an adapter;
3. the PyPI package gguf reads the keys and tensors of geul's adapter, with the values of the original;
4. an adapter in a file of gguf's writer, in float16 as llama.cpp's converter writes it, gives them in geul (1e-3).
"""
import argparse
import os
import subprocess
import sys
import tempfile
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="0", TRANSFORMERS_VERBOSITY="error")
warnings.filterwarnings("ignore")

import gguf
import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import GPTNeoXForCausalLM

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GOLDEN = os.path.join(ROOT, "tests", "golden")
BASE = os.path.join(GOLDEN, "parallel")
HEADS = 2
NAMES = {"attention.query_key_value": "attn_qkv", "attention.dense": "attn_output", "mlp.dense_h_to_4h": "ffn_up",
         "mlp.dense_4h_to_h": "ffn_down"}
passed, failed = 0, 0


def check(ok, what):
    global passed, failed
    passed += bool(ok)
    failed += not ok
    print(("ok    " if ok else "FAIL  ") + what)


def run(*argv):
    r = subprocess.run(argv, capture_output=True, text=True)
    if r.returncode:
        check(False, f"{' '.join(argv)}: {r.stderr.strip()}")
    return r.returncode == 0


def near(mine, theirs, share, what):
    worst = float(np.abs(mine - theirs).max() / (theirs.max() - theirs.min()))
    check(worst <= share, f"{what}: logits differ by {worst:.1e} of their range")


@torch.no_grad()
def logits(model, tokens):
    return model.eval()(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].numpy()


def base_model(folder=BASE):
    return GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def adapter_tensors(folder):
    """(layer, GGUF name, A, B with rows as GGUF has them) of every pair, as NumPy arrays."""
    path = os.path.join(folder, "adapter_model.safetensors")
    tensors = load_file(path)
    for name, a in sorted(tensors.items()):
        if "lora_A" not in name:
            continue
        layer, module = name.removeprefix("base_model.model.gpt_neox.layers.").split(".", 1)
        module = module.removesuffix(".lora_A.weight")
        b = tensors[name.replace("lora_A", "lora_B")].float().numpy()
        if module == "attention.query_key_value":
            b = b.reshape(HEADS, 3, -1, b.shape[1]).swapaxes(0, 1).reshape(b.shape)
        yield int(layer), NAMES[module], a.float().numpy(), b


def check_export(geul, case, tokens, expected, tmp):
    """1. PEFT with what geul exports."""
    adapter, back = f"{tmp}/{case}.gguf", f"{tmp}/{case}-back"
    if not (run(geul, "convert", f"{GOLDEN}/{case}", "-o", adapter, "--base", BASE) and
            run(geul, "export", adapter, back)):
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base_model(), back)
    odd = [str(w.message) for w in said if "key" in str(w.message).lower()]
    check(not odd, f"{case}: PEFT loads geul's export without a word about keys {odd}")
    near(logits(model, tokens), expected, 1e-5, f"{case}: geul's export in PEFT")
    near(logits(model.merge_and_unload(), tokens), expected, 1e-5, f"{case}: geul's export, merged by PEFT")


def check_merge(geul, case, tokens, expected, tmp):
    """2. transformers with what geul merges."""
    base, merged, folder = f"{tmp}/base.gguf", f"{tmp}/{case}-merged.gguf", f"{tmp}/{case}-merged"
    if (run(geul, "convert", BASE, "-o", base, "--type", "f32") and
            run(geul, "merge", "-m", base, "--lora", f"{GOLDEN}/{case}", "-o", merged) and
            run(geul, "export", merged, folder)):
        near(logits(base_model(folder), tokens), expected, 1e-5, f"{case}: merged and exported by geul")


def check_reader(case, tmp):
    """3. gguf's reader on geul's file."""
    reader = gguf.GGUFReader(f"{tmp}/{case}.gguf")
    keys = {k: f.contents() for k, f in reader.fields.items()}
    check(keys["general.type"] == "adapter" and keys["adapter.type"] == "lora" and
          keys["general.architecture"] == "gptneox" and keys["adapter.lora.alpha"] == 8, f"{case}: keys in gguf's reader")
    mine = {t.name: np.asarray(t.data) for t in reader.tensors}
    same = True
    for layer, name, a, b in adapter_tensors(f"{GOLDEN}/{case}"):
        stem = f"blk.{layer}.{name}.weight.lora_"
        same &= np.array_equal(mine.pop(stem + "a"), a) and np.array_equal(mine.pop(stem + "b"), b)
    check(same and not mine, f"{case}: tensors in gguf's reader")


def check_writer(geul, case, tokens, expected, tmp):
    """4. geul with a file of gguf's writer."""
    path, out = f"{tmp}/{case}-pypi.gguf", f"{tmp}/{case}.npy"
    w = gguf.GGUFWriter(path, "gptneox")
    w.add_type(gguf.GGUFType.ADAPTER)
    w.add_string(gguf.Keys.Adapter.TYPE, "lora")
    w.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 8.0)
    for layer, name, a, b in adapter_tensors(f"{GOLDEN}/{case}"):
        w.add_tensor(f"blk.{layer}.{name}.weight.lora_a", a.astype(np.float16))
        w.add_tensor(f"blk.{layer}.{name}.weight.lora_b", np.ascontiguousarray(b.astype(np.float16)))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    if run(geul, "logits", "-m", f"{tmp}/base.gguf", "--lora", path, "--ids", " ".join(map(str, tokens)), "-o", out):
        near(np.load(out), expected, 1e-3, f"{case}: file of gguf's writer in geul")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--geul", default=os.path.join(ROOT, "build", "geul"))
    geul = parser.parse_args().geul
    tokens = np.load(f"{BASE}/tokens.npy").tolist()
    with tempfile.TemporaryDirectory() as tmp:
        for case in ("peft_plain", "peft_patterns"):
            expected = np.load(f"{GOLDEN}/{case}/logits.npy")
            check_export(geul, case, tokens, expected, tmp)
            check_merge(geul, case, tokens, expected, tmp)
        check_reader("peft_plain", tmp)
        check_writer(geul, "peft_plain", tokens, np.load(f"{GOLDEN}/peft_plain/logits.npy"), tmp)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
