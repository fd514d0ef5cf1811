#!/usr/bin/env python3
"""Compare geul's tokenizer with Hugging Face's: the same ids on every line of ../shared/data, and how much faster.

    /opt/geul-py/bin/python bench/tokenizer/compare.py [--runs 5] [--cache DIR]

Trains two tokenizers of 30,000 entries with HF tokenizers on that text (kept in the cache directory), encodes every
line of every file and the hard strings of tests/golden/make_tok.py with both, and measures one thread of each in
alternating runs. Needs a C compiler and what geul is built with. Exit code 1 when any ids differ.
"""
import os

os.environ.update(TOKENIZERS_PARALLELISM="0", RAYON_NUM_THREADS="1")

import argparse
import glob
import json
import statistics
import struct
import subprocess
import sys
import time

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.path.join(os.path.dirname(ROOT), "shared", "data")
sys.path.insert(0, os.path.join(ROOT, "tests", "golden"))
import make_tok

# A pattern that geul has no scanner for, so that PCRE2 is measured too: Hangul apart from other letters.
HANGUL = r" ?[\p{Hangul}]+| ?[^\s\p{N}\p{P}\p{S}\p{Hangul}]+| ?\p{N}{1,3}| ?[\p{P}\p{S}]+[\r\n]*|\s+(?!\S)|\s+"
SPECIAL = ["<|unused0|>", "<|unused1|>", "<|endoftext|>", "<|sep|>"]


def files():
    return sorted(glob.glob(os.path.join(DATA, "**", "*.*"), recursive=True))


def lines():
    """Every line of every file, unchanged."""
    for path in files():
        with open(path, encoding="utf-8", newline="\n") as f:
            yield from (line.rstrip("\n") for line in f)


def corpus():
    """What the tokenizers are trained on: the texts without their JSON."""
    for line in lines():
        if line.startswith("{"):
            d = json.loads(line)
            yield d.get("title", "")
            yield from d.get("content", "").split("\n")
        else:
            yield line


def train(path, normalizer, pre):
    if not os.path.exists(path):
        tok = Tokenizer(models.BPE())
        if normalizer:
            tok.normalizer = normalizer
        tok.pre_tokenizer = pre
        tok.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=30000, special_tokens=SPECIAL, show_progress=False,
                                      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
        tok.train_from_iterator(corpus(), trainer)
        tok.save(path)
    return Tokenizer.from_file(path)


def tokenizers(cache):
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def split(pattern):
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), level])

    for name, normalizer, pre in (
            ("bytelevel", None, pre_tokenizers.ByteLevel(add_prefix_space=False)),
            ("nfc_split", normalizers.NFC(), split(make_tok.GPT4)),
            ("nfc_pcre2", normalizers.NFC(), split(HANGUL))):
        path = os.path.join(cache, name + ".json")
        yield name, path, train(path, normalizer, pre)


def build(cache):
    """The C side, compiled from the tree."""
    out = os.path.join(cache, "tokenize_bench")
    parts = [*glob.glob("tokenizer/*.c", root_dir=ROOT), *glob.glob("core/*.c", root_dir=ROOT),
             *(f"convert/{n}.c" for n in ("json_file", "tokenizer_json", "regex_pcre2")),
             "bench/tokenizer/tokenize_bench.c"]
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-O2", "-DNDEBUG", "-I.", "-Iinclude", "-ffunction-sections",
                    "-Wl,--gc-sections", "-o", out, *parts, "-lutf8proc", "-ljansson", "-lpcre2-8", "-lm", "-lpthread"],
                   cwd=ROOT, check=True)
    return out


def compare(name, path, hf, bench, texts, cache, runs):
    """Returns the number of texts whose ids differ."""
    blob, ids_path = os.path.join(cache, "texts.bin"), os.path.join(cache, "ids.bin")
    with open(blob, "wb") as f:
        for text in texts:
            data = text.encode()
            f.write(struct.pack("<I", len(data)) + data)
    with subprocess.Popen([bench, path, blob, ids_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout.readline() == "ready\n", "the C side failed"
        hf_times, geul_times = [], []
        for _ in range(runs):
            start = time.perf_counter()
            for text in texts:
                hf.encode(text, add_special_tokens=False)
            hf_times.append(time.perf_counter() - start)
            p.stdin.write("run\n")
            p.stdin.flush()
            geul_times.append(float(p.stdout.readline()))
        p.stdin.close()
    different, n_ids = 0, 0
    with open(ids_path, "rb") as f:
        for text in texts:
            count = struct.unpack("<I", f.read(4))[0]
            ids = list(struct.unpack(f"<{count}i", f.read(4 * count)))
            n_ids += count
            want = hf.encode(text, add_special_tokens=False).ids
            if ids != want:
                different += 1
                if different <= 5:
                    print(f"  different: {text[:80]!r}\n    HF   {want[:20]}\n    geul {ids[:20]}")
    size = os.path.getsize(blob) / 1e6
    a, b = statistics.median(hf_times), statistics.median(geul_times)
    print(f"{name}: {len(texts)} texts, {n_ids} ids, {different} differ; HF {size / a:.2f} MB/s, geul {size / b:.1f} MB/s, "
          f"{a / b:.1f} times as fast (medians of {runs}; range of ratios {min(x / y for x, y in zip(hf_times, geul_times)):.1f}"
          f" to {max(x / y for x, y in zip(hf_times, geul_times)):.1f})", flush=True)
    return different


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cache", default=os.path.join(os.path.expanduser("~"), ".cache", "geul-bench-tokenizer"))
    args = parser.parse_args()
    os.makedirs(args.cache, exist_ok=True)
    bench = build(args.cache)
    texts = [*lines(), *make_tok.HARD]
    different = sum(compare(name, path, hf, bench, texts, args.cache, args.runs)
                    for name, path, hf in tokenizers(args.cache))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
