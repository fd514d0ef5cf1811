"""tokenizer_files.json: what AutoTokenizer (transformers 5.24.0, tokenizers 0.23.3) makes of a directory whose tokenizer
is spread over several files.

    /opt/geul-py/bin/python tests/golden/make_tokenizer_files.py

Each case: "files", the directory's files besides full/config.json (an object is written as JSON, a text as it is;
"tokenizer.json" holds what replaces members of full/tokenizer.json, "vocab.json" is full's vocabulary, and "merges.txt"
is the end of its lines, after an optional "#version" line); "ids" of each text, and "plain", without the tokens that are
put around it.
"""
import json
import os
import tempfile

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
from transformers import AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
FULL = os.path.join(HERE, "full")
with open(os.path.join(FULL, "tokenizer.json"), encoding="utf-8") as f:
    TOKENIZER = json.load(f)
with open(os.path.join(FULL, "config.json"), encoding="utf-8") as f:
    CONFIG = json.load(f)
MERGES = [m if isinstance(m, str) else " ".join(m) for m in TOKENIZER["model"]["merges"]]

TEXTS = ["가 <|im_start|> 나<|im_end|>x<|pad|>", "hello <|sep|> the <|endoftext|> Abc <|new|><|x|>", "안녕 hello",
         "\u1100\u1161 <|padding|>", ""]
FAST, NEOX, GPT2 = "PreTrainedTokenizerFast", "GPTNeoXTokenizer", "GPT2Tokenizer"


def added(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True, **flags}


def template(*pieces, **ids):
    single = [{"Sequence": {"id": "A", "type_id": 0}} if p == "A" else {"SpecialToken": {"id": p, "type_id": 0}}
              for p in pieces]
    names = {"<|sep|>": 3, "<|endoftext|>": 2, "<|acc|>": 400}
    return {"type": "TemplateProcessing", "single": single, "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                                                                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {p: {"id": p, "ids": [names[p]], "tokens": [p]} for p in set(pieces) - {"A"}}}


BOTH = template("<|sep|>", "A", "<|endoftext|>")
LF, CRLF, PLAIN = "#version: 0.2\n", "#version: 0.2\r\n", "\n"
BORDERS = {"add_bos_token": True, "add_eos_token": True, "bos_token": "<|sep|>", "eos_token": "<|endoftext|>"}
START = added("<|im_start|>")


def config(cls, **more):
    return {"tokenizer_config.json": {**({"tokenizer_class": cls} if cls else {}), **more}}


def with_json(files, **replaced):
    return {"tokenizer.json": replaced, **files}


def with_merges(files, lines=LF):
    return {"vocab.json": "full", "merges.txt": lines, **files}


CASES = {
    # what is put around a text
    "template": with_json(config(FAST), post_processor=BOTH),
    "template_of_gpt2": with_json(config(GPT2 + "Fast"), post_processor=BOTH),
    "template_that_the_class_drops": with_json(config(NEOX), post_processor=BOTH),
    "template_without_config": with_json({}, post_processor=BOTH),
    "template_in_sequence": with_json(config(FAST), post_processor={"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        template("<|acc|>", "<|sep|>", "A")]}),
    "template_behind": with_json(config(FAST), post_processor=template("A", "<|sep|>", "<|sep|>")),
    "roberta": with_json(config(FAST), post_processor={"type": "RobertaProcessing", "sep": ["<|sep|>", 3],
                                                       "cls": ["<|endoftext|>", 2], "trim_offsets": True,
                                                       "add_prefix_space": False}),
    "bert": with_json(config(FAST), post_processor={"type": "BertProcessing", "sep": ["<|sep|>", 3],
                                                    "cls": ["<|endoftext|>", 2]}),
    "add_bos_beside_json": with_json(config(FAST, **BORDERS)),
    "add_bos_beside_json_without_post": with_json(config(FAST, **BORDERS), post_processor=None),
    "add_bos_beside_json_neox": with_json(config(NEOX, **BORDERS)),
    "add_bos_merges_neox": with_merges(config(NEOX, **BORDERS)),
    "add_bos_merges_gpt2": with_merges(config(GPT2, **BORDERS)),
    "add_bos_merges_new": with_merges(config(NEOX + "Fast", bos_token="<s>", add_bos_token=True, unk_token="<unk>")),
    "add_eos_merges": with_merges(config(GPT2, eos_token="<|endoftext|>", add_eos_token=True)),
    # vocab.json and merges.txt
    "merges_without_config": with_merges({}),
    "merges_crlf": with_merges(config(NEOX), CRLF),
    "merges_without_version": with_merges(config(GPT2), PLAIN),
    "merges_legacy": with_merges({
        **config(NEOX), "added_tokens.json": {"<|im_start|>": 401, "<|x|>": 400},
        "special_tokens_map.json": {"additional_special_tokens": ["<|im_start|>", "<|new|>"],
                                    "eos_token": {"content": "<|sep|>", "lstrip": True, "normalized": False,
                                                  "rstrip": True, "single_word": False}}}),
    # add_prefix_space and a class's own steps
    "prefix_fast": with_json(config(FAST, add_prefix_space=True)),
    "prefix_neox": with_json(config(NEOX, add_prefix_space=True)),
    "prefix_without_class": with_json(config(None, add_prefix_space=True)),
    "prefix_gpt2": with_json(config(GPT2 + "Fast", add_prefix_space=True)),
    "prefix_merges": with_merges(config(NEOX, add_prefix_space=True)),
    "steps_of_neox": with_json(config(NEOX), normalizer=None),
    "steps_of_json": with_json(config(FAST), normalizer=None),
    "steps_without_config": with_json({}, normalizer=None),
    "class_in_config_json": with_json({"config.json": {"tokenizer_class": FAST}}, normalizer=None),
    "class_of_others": with_json(config("MyTokenizer", additional_special_tokens=["<|im_end|>"])),
    "class_of_llama": with_json(config("LlamaTokenizerFast", additional_special_tokens=["<|im_end|>"])),
    # tokens beyond tokenizer.json
    "decoder": with_json(config(FAST, added_tokens_decoder={"403": START}, additional_special_tokens=["<|im_end|>"])),
    "decoder_with_gaps": with_json(config(FAST, added_tokens_decoder={"1000": START, "999": added("<|im_end|>")})),
    "decoder_defaults": with_json(config(FAST, added_tokens_decoder={"403": {"content": "<|im_start|>"}})),
    "decoder_flags": with_json(config(FAST, added_tokens_decoder={
        "2": added("<|endoftext|>", lstrip=True), "403": added("<|im_start|>", rstrip=True),
        "404": added("<|im_end|>", special=False, single_word=True),
        "405": added("Abc", special=False, normalized=True)})),
    "decoder_names_eos": with_json(config(FAST, eos_token="<|im_end|>", added_tokens_decoder={
        "403": added("<|im_end|>", special=False)})),
    "extra_list": with_json(config(FAST, extra_special_tokens=[
        "<|im_start|>", added("<|im_end|>", __type="AddedToken", lstrip=True)])),
    "extra_dict": with_json(config(FAST, extra_special_tokens={"image_token": "<|im_start|>", "b": "<|im_end|>"})),
    "extra_before_additional": with_json(config(FAST, extra_special_tokens=["<|im_start|>"],
                                                additional_special_tokens=["<|im_end|>"])),
    "named": with_json(config(FAST, pad_token="<|pad|>", cls_token="<|im_end|>", foo_token="<|im_start|>",
                              bos_token="hello")),
    "named_object": with_json(config(FAST, eos_token=added("<|sep|>", __type="AddedToken", lstrip=True))),
    "named_null": with_json(config(NEOX, pad_token=None, eos_token=None)),
    "word_of_the_vocabulary": with_json(config(FAST, additional_special_tokens=["the"])),
    "map": with_json({"special_tokens_map.json": {"pad_token": "<|pad|>",
                                                  "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}}),
    "map_fast": with_json({**config(FAST), "special_tokens_map.json": {
        "pad_token": "<|pad|>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}}),
    "map_behind_decoder": with_json({**config(FAST, added_tokens_decoder={"403": START}), "special_tokens_map.json": {
        "pad_token": "<|pad|>", "additional_special_tokens": ["<|im_end|>"]}}),
    "map_behind_config": with_json({**config(FAST, additional_special_tokens=["<|im_start|>"]),
                                    "special_tokens_map.json": {"additional_special_tokens": ["<|im_end|>"]}}),
    "added_json": with_json({**config(FAST), "added_tokens.json": {"<|im_end|>": 404, "<|im_start|>": 403}}),
    "added_json_special": with_json({**config(FAST, additional_special_tokens=["<|im_end|>"]),
                                     "added_tokens.json": {"<|im_end|>": 404, "<|im_start|>": 403}}),
    "padding_of_neox": with_json(config(NEOX)),
}


def write(folder, files):
    contents = {"config.json": CONFIG, **files}
    if "config.json" in files:
        contents["config.json"] = {**CONFIG, **files["config.json"]}
    if "tokenizer.json" in files:
        contents["tokenizer.json"] = {**TOKENIZER, **files["tokenizer.json"]}
    if "vocab.json" in files:
        contents["vocab.json"] = TOKENIZER["model"]["vocab"]
        end = "\r\n" if files["merges.txt"].endswith("\r\n") else "\n"
        contents["merges.txt"] = files["merges.txt"].lstrip("\n") + "".join(m + end for m in MERGES)
    for name, value in contents.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8", newline="") as f:
            f.write(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def main():
    out = {"texts": TEXTS, "cases": []}
    for name, files in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            write(folder, files)
            tok = AutoTokenizer.from_pretrained(folder)
        out["cases"].append({"name": name, "files": files, "ids": [tok(t).input_ids for t in TEXTS],
                             "plain": [tok(t, add_special_tokens=False).input_ids for t in TEXTS]})
    with open(os.path.join(HERE, "tokenizer_files.json"), "w", encoding="utf-8") as f:
        f.write('{"texts": ' + json.dumps(out["texts"], ensure_ascii=False) + ',\n"cases": [\n')
        f.write(",\n".join(json.dumps(c, ensure_ascii=False) for c in out["cases"]) + "\n]}\n")


if __name__ == "__main__":
    main()
