#!/usr/bin/env python3
"""Convert random GPT-NeoX directories of every form that people have, and compare geul with transformers:

    tests/convert/check_random_directories.py [--geul build/geul] [--seed 1] [--count 200] [--only N] [--keep DIR]

Each case draws, from the seed and its number, a shape, a type of numbers, how the weights are stored (safetensors or
.bin, zip or legacy, whole or in shards, strided), what their names begin with, old buffers, the form of config.json,
and a tokenizer: trained on a few lines, stored as tokenizer.json or as vocab.json and merges.txt, with tokens and
settings in any of the files that may hold them. Then

1. `geul convert --type f32` and `geul logits` give the logits of GPTNeoXForCausalLM, within 5e-6 of their range;
2. `geul tokenize` gives the ids of AutoTokenizer for a dozen difficult texts, and from the directory the same as from
   the file that `geul convert` made;
3. `geul export` of that file is a directory that transformers loads with the same logits, and AutoTokenizer with the
   same ids.

A failed case prints its number and what was drawn; --only N repeats it alone, --keep DIR leaves its files. Needs the
environment of tests/golden/make.py.
"""
import argparse
import collections
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="0", OMP_NUM_THREADS="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1")

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GPTNeoXConfig, GPTNeoXForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOLERANCE = 5e-6  # of the range of the logits; both sides compute in float32

CORPUS = """안녕하세요. 저는 한국어를 조금 배우고 있습니다.
한국의 수도는 서울이고, 서울의 인구는 약 천만 명이다.
오늘은 날씨가 맑아서 산책을 갔다가 커피를 마셨어요!
The quick brown fox jumps over the lazy dog; it isn't 3.14 but 2,718.
def main():\n    return [i * 2 for i in range(10)]
가나다라마바사 아자차카타파하 ㅋㅋㅋㅋ ㅠㅠ 2023년 10월 5일 (목)"""
TEXTS = [
    "안녕하세요 hello", " 앞에 빈칸", "뒤에 빈칸  ", "가나다  \t 라마바", "한글", "e\u0301 café ﬁ ①",
    "👩‍👩‍👧 이모지 🇰🇷", "it's 3.14, isn't it? 1234567", "<|endoftext|>가", "가<|im_start|>나 <|im_end|> 다",
    "a<sep>b <sep> c", "\u3000전각\u00a0공백", "ㅋㅋㅋ~~ ^^;;", "x", "<|endof", "[UNK]<unk>\u200b끝",
]


def draw_shape(r):
    d_head = r.choice([8, 16, 16, 20, 32, 48, 64, 80])
    heads = r.randint(1, 5)
    pcts = [p for p in (0.25, 0.5, 0.75, 1.0) if int(d_head * p) % 2 == 0]
    return dict(hidden_size=heads * d_head, num_attention_heads=heads, num_hidden_layers=r.randint(1, 4),
                intermediate_size=r.choice([16, 40, 64, 96, 100, 4 * heads * d_head]),
                max_position_embeddings=r.choice([48, 64, 100, 2048]), rotary_pct=r.choice(pcts),
                rotary_emb_base=r.choice([10000, 10000, 500, 1000000]), use_parallel_residual=r.random() < 0.6,
                hidden_act=r.choice(["gelu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"]),
                attention_bias=r.random() < 0.8, tie_word_embeddings=r.random() < 0.25,
                layer_norm_eps=r.choice([1e-5, 1e-5, 1e-6, 1e-12]))


def draw_case(seed, number):
    r = random.Random(f"{seed}:{number}")
    case = collections.OrderedDict(shape=draw_shape(r))
    case["dtype"] = r.choice(["float32", "float32", "float16", "bfloat16", "float64"])
    case["weights"] = r.choice(["safetensors", "safetensors", "shards", "bin", "bin-shards", "bin-legacy", "bin-strided"])
    case["prefix"] = r.choice(["", "", "", "", "module.", "_orig_mod.", "model.", "base_model.model.", "module.model.",
                               "-gpt_neox."])
    case["buffers"] = r.choice(["none", "none", "stored", "in the index only"])
    case["config"] = r.choice(["as saved", "v4", "v4", "float16 dtype", "nan", "extra"])
    case["tokenizer"] = r.choice(["json", "json", "json", "vocab and merges"])
    case["normalizer"] = r.choice([None, "NFC", None, "NFKC"]) if case["tokenizer"] == "json" else None
    case["split"] = r.choice([None, None, "gpt2", "gpt4"]) if case["tokenizer"] == "json" else None
    case["prefix_space"] = r.random() < 0.2
    case["template"] = r.choice([None, None, "bos", "bos and eos"]) if case["tokenizer"] == "json" else None
    case["added"] = r.choice(["tokenizer.json", "added_tokens_decoder", "additional_special_tokens",
                              "extra_special_tokens", "added_tokens.json", "none"])
    case["flags"] = r.choice([{}, {}, {"lstrip": True}, {"rstrip": True}, {"single_word": True}])
    case["add_bos"] = r.choice([None, None, None, True, False])
    case["max_length"] = r.choice([2048, int(1e30), None])
    case["eos"] = r.choice(["one", "one", "list"])
    case["pad_rows"] = r.choice([0, 0, 5, 64])
    return r, case


# ------------------------------------------------------------------------------------------------------- tokenizer --

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")


def make_tokenizer(case, vocab_size):
    """A trained byte-level BPE with <|endoftext|> as id 0."""
    tok = Tokenizer(models.BPE())
    if case["normalizer"]:
        tok.normalizer = getattr(normalizers, case["normalizer"])()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=case["prefix_space"], use_regex=case["split"] is None)
    if case["split"]:
        pattern = Regex({"gpt2": GPT2, "gpt4": GPT4}[case["split"]])
        tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), byte_level])
    else:
        tok.pre_tokenizer = byte_level
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(CORPUS.split("\n"), trainer)
    if case["template"]:
        single = "<|endoftext|> $A" + (" <|endoftext|>" if case["template"] == "bos and eos" else "")
        tok.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<|endoftext|>", 0)])
    else:
        tok.post_processor = processors.ByteLevel(trim_offsets=True)
    return tok


def added_tokens(case):
    names = ["<|im_start|>", "<|im_end|>", "<sep>"]
    return [dict(content=n, lstrip=False, rstrip=False, single_word=False, normalized=False, special=True)
            | case["flags"] for n in names]


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False)


def write_tokenizer(case, folder, vocab_size):
    """Returns the number of ids, those of added tokens included."""
    tok = make_tokenizer(case, vocab_size)
    n, extra = tok.get_vocab_size(), added_tokens(case)
    config = {"tokenizer_class": "GPTNeoXTokenizer" if case["tokenizer"] != "json" else "PreTrainedTokenizerFast",
              "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
              "add_prefix_space": case["prefix_space"], "clean_up_tokenization_spaces": False}
    if case["max_length"]:
        config["model_max_length"] = case["max_length"]
    if case["add_bos"] is not None:
        config["add_bos_token"] = case["add_bos"]
    if case["added"] == "tokenizer.json" and case["tokenizer"] == "json":
        tok.add_special_tokens([AddedToken(t["content"], **{k: v for k, v in t.items() if k != "content"}) for t in extra])
    elif case["added"] == "added_tokens_decoder":
        config["added_tokens_decoder"] = {str(n + i): t for i, t in enumerate(extra)}
    elif case["added"] in ("additional_special_tokens", "extra_special_tokens"):
        config[case["added"]] = [t["content"] for t in extra]
    elif case["added"] == "added_tokens.json":
        write_json(f"{folder}/added_tokens.json", {t["content"]: n + i for i, t in enumerate(extra)})
    write_json(f"{folder}/tokenizer_config.json", config)
    if case["tokenizer"] == "json":
        tok.save(f"{folder}/tokenizer.json")
    else:
        tok.model.save(folder)
    return n + len(extra) + (case["tokenizer"] != "json")  # GPTNeoXTokenizer adds <|padding|>


# ----------------------------------------------------------------------------------------------------------- model --

def make_model(case, r, rows):
    torch.manual_seed(r.randrange(1 << 30))
    config = GPTNeoXConfig(vocab_size=rows + case["pad_rows"], **case["shape"], bos_token_id=0, eos_token_id=0)
    model = GPTNeoXForCausalLM(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():  # biases and norms are zeros and ones otherwise
            value = torch.randn_like(p) * 0.1 + ("norm" in name and name.endswith("weight"))
            p.copy_(value.to(getattr(torch, case["dtype"])))  # as the file will hold it; not so the rotary buffers
    return model


def rename(case, tensors):
    prefix, out = case["prefix"], collections.OrderedDict()
    for name, t in tensors.items():
        out[name[len("gpt_neox."):] if prefix == "-gpt_neox." and name.startswith("gpt_neox.") else
            name if prefix == "-gpt_neox." else prefix + name] = t
    return out


def old_buffers(case, model):
    out, c = {}, model.config
    n = min(c.max_position_embeddings, 64)
    for i in range(c.num_hidden_layers):
        at = f"gpt_neox.layers.{i}.attention"
        out[f"{at}.bias"] = torch.tril(torch.ones(n, n, dtype=torch.uint8)).view(1, 1, n, n)
        out[f"{at}.masked_bias"] = torch.tensor(-1e9)
        out[f"{at}.rotary_emb.inv_freq"] = torch.ones(4)
    return out


def strided(t):
    """The same values in memory of another order, or inside of a larger tensor."""
    if t.dim() == 2:
        return t.t().contiguous().t()
    return torch.stack([t, t + 1], dim=-1)[..., 0] if t.dim() == 1 else t


def write_weights(case, folder, model):
    dtype = getattr(torch, case["dtype"])
    tensors = collections.OrderedDict((k, v.detach().to(dtype).clone()) for k, v in model.state_dict().items())
    if case["shape"]["tie_word_embeddings"]:
        tensors.pop("embed_out.weight", None)
        tensors.pop("lm_head.weight", None)
    if case["buffers"] == "stored":
        tensors.update(old_buffers(case, model))
    tensors = rename(case, tensors)
    kind = case["weights"]
    binary = kind.startswith("bin")
    if kind.endswith("shards"):
        suffix, stem = (".bin", "pytorch_model") if binary else (".safetensors", "model")
        names, n = list(tensors), 3
        files = {f"{stem}-{i + 1:05}-of-{n:05}{suffix}": names[i::n] for i in range(n)}
        index = {"metadata": {"total_size": 0}, "weight_map": {k: f for f, part in files.items() for k in part}}
        if case["buffers"] == "in the index only":
            index["weight_map"].update({k: next(iter(files)) for k in rename(case, old_buffers(case, model))})
        write_json(f"{folder}/{stem}{suffix}.index.json", index)
        for f, part in files.items():
            save = {k: tensors[k] for k in part}
            torch.save(save, f"{folder}/{f}") if binary else save_file(save, f"{folder}/{f}", {"format": "pt"})
    elif binary:
        if kind == "bin-strided":
            tensors = {k: strided(v) for k, v in tensors.items()}
        torch.save(tensors, f"{folder}/pytorch_model.bin", _use_new_zipfile_serialization=kind != "bin-legacy")
    else:
        save_file(tensors, f"{folder}/model.safetensors", {"format": "pt"})


def write_config(case, folder, model):
    model.config.dtype = case["dtype"]
    c = model.config.to_dict()
    if case["config"] == "v4":
        for key in ("rope_parameters", "partial_rotary_factor", "rope_theta"):
            c.pop(key, None)
        c.update(rotary_pct=case["shape"]["rotary_pct"], rotary_emb_base=case["shape"]["rotary_emb_base"],
                 torch_dtype=c.pop("dtype", None), rope_scaling=None)
    elif case["config"] == "nan":
        c.update(best_metric=float("nan"), loss_limit=float("inf"), huge=10 ** 40)
    elif case["config"] == "float16 dtype":
        c["dtype"] = "float16"  # what a later save in another type leaves behind
    elif case["config"] == "extra":
        c.update(use_cache=True, _name_or_path="/somebody's/모델", transformers_version="4.30.0", pruned_heads={},
                 id2label={"0": "LABEL_0"}, quantization_config_note=None)
    c["architectures"] = ["GPTNeoXForCausalLM"]
    ends = 0 if case["eos"] == "one" else [0, 7]
    c["eos_token_id"] = 0
    write_json(f"{folder}/config.json", c)
    write_json(f"{folder}/generation_config.json", {"bos_token_id": 0, "eos_token_id": ends})
    return [0] if case["eos"] == "one" else [0, 7]


# --------------------------------------------------------------------------------------------------------- compare --

class Wrong(Exception):
    pass


def run(*words, stdin=None):
    p = subprocess.run(words, input=stdin, capture_output=True, text=True)
    if p.returncode != 0:
        raise Wrong(f"{' '.join(words[1:3])}: exit {p.returncode}: {p.stderr.strip()[:400]}")
    return p.stdout


def compare_logits(what, got, want):
    scale = float(want.max() - want.min())
    error = float(np.abs(got - want).max()) / scale
    if not error <= TOLERANCE:
        raise Wrong(f"{what}: logits differ by {error:.2g} of their range")
    return error


def hf_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def compare_ids(what, geul, source, reference):
    lines = "".join(t + "\n" for t in TEXTS)
    got = [json.loads(line)["ids"] for line in run(geul, "tokenize", "-m", source, "--json", stdin=lines).splitlines()]
    for text, ids in zip(TEXTS, got):
        want = reference(text)["input_ids"]
        if ids != want:
            raise Wrong(f"{what}: {text!r} is {ids}, transformers has {want}")


def check(geul, r, case, folder):
    hf, gguf, back = f"{folder}/hf", f"{folder}/m.gguf", f"{folder}/back"
    os.makedirs(hf)
    rows = write_tokenizer(case, hf, r.choice([300, 330, 380]))
    model = make_model(case, r, rows)
    write_weights(case, hf, model)
    write_config(case, hf, model)
    run(geul, "convert", hf, "-o", gguf, "--type", "f32")
    ids = [r.randrange(rows) for _ in range(r.choice([1, 7, 33]))]
    run(geul, "logits", "-m", gguf, "--ids", " ".join(map(str, ids)), "-o", f"{folder}/l.npy")
    want = hf_logits(model, ids)
    error = compare_logits("convert", np.load(f"{folder}/l.npy"), want)
    tokenizer = AutoTokenizer.from_pretrained(hf)
    compare_ids("the directory's tokenizer", geul, hf, tokenizer)
    compare_ids("the converted tokenizer", geul, gguf, tokenizer)
    run(geul, "export", gguf, back, "--type", "f32")
    again = GPTNeoXForCausalLM.from_pretrained(back, dtype=torch.float32).eval()
    compare_logits("export", hf_logits(again, ids), want)
    exported = AutoTokenizer.from_pretrained(back)
    for text in TEXTS:
        if exported(text)["input_ids"] != tokenizer(text)["input_ids"]:
            raise Wrong(f"the exported tokenizer: {text!r} is {exported(text)['input_ids']}, "
                        f"was {tokenizer(text)['input_ids']}")
    return error


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--geul", default=os.path.join(ROOT, "build", "geul"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--only", type=int)
    parser.add_argument("--keep")
    args = parser.parse_args()
    torch.set_num_threads(1)
    numbers = [args.only] if args.only is not None else range(args.count)
    failures, worst = 0, 0.0
    for number in numbers:
        r, case = draw_case(args.seed, number)
        folder = tempfile.mkdtemp(prefix="geul-random-")
        try:
            worst = max(worst, check(args.geul, r, case, folder))
        except Wrong as e:
            failures += 1
            print(f"FAILED {number}: {e}\n    {json.dumps(case)}", flush=True)
        finally:
            if args.keep:
                shutil.rmtree(args.keep, ignore_errors=True)
                shutil.copytree(folder, args.keep)
            shutil.rmtree(folder)
        if sys.stderr.isatty():
            print(f"\r{number + 1} of {numbers[-1] + 1}", end="", file=sys.stderr)
    print(f"largest difference of a logit: {worst:.2g} of their range")
    print(f"{len(numbers) - failures} passed, {failures} failed, 0 skipped")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
