#!/usr/bin/env python3
"""Write the seeds of the fuzz targets that need no tool of their own: tests/fuzz/make_seeds.py (no packages needed).

Each is a few hundred bytes, whole and honest; the fuzzer does the rest.
"""
import io
import os
import struct
import zipfile

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seeds")


def put(target, name, data):
    os.makedirs(os.path.join(HERE, target), exist_ok=True)
    with open(os.path.join(HERE, target, name), "wb") as f:
        f.write(data)


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


F32, F16, Q8_0, Q4_0 = 0, 1, 8, 2


def floats(values):
    return struct.pack(f"<{len(values)}f", *values)


def gguf_file(keys, tensors):
    """keys: name, type, bytes of the value; tensors: name, dims as GGUF orders them, type, bytes."""
    b = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for key, kind, value in keys:
        b += text(key) + struct.pack("<I", kind) + value
    at = 0
    for name, dims, kind, data in tensors:
        b += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, at)
        at += -(-len(data) // 32) * 32
    b += b"\0" * (-len(b) % 32)
    return b + b"".join(data.ljust(-(-len(data) // 32) * 32, b"\0") for _, _, _, data in tensors)


def gguf(version):
    keys = [("general.alignment", 4, struct.pack("<I", 32)), ("u8", 0, b"\1"), ("i16", 3, b"\1\2"), ("f64", 12, b"\0" * 8),
            ("b", 7, b"\1"), ("s", 8, text("글")), ("n", 9, struct.pack("<IQ3i", 5, 3, 1, -2, 3)),
            ("t", 9, struct.pack("<IQ", 8, 2) + text("a") + text("bc"))]
    tensors = [("x", (4, 2), 0, 0, 32), ("y", (32,), 8, 32, 34)]
    b = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for key, kind, value in keys:
        b += text(key) + struct.pack("<I", kind) + value
    for name, dims, kind, offset, _ in tensors:
        b += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
    return b + b"\0" * (-len(b) % 32) + b"\1" * 66


def safetensors():
    head = ('{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
            '"b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]}}').encode()
    return struct.pack("<Q", len(head)) + head + b"\1" * 26


def string(s):
    return b"X" + struct.pack("<I", len(s)) + s.encode()


def program():
    storage = (b"(" + string("storage") + b"ctorch\nFloatStorage\nq\0" + string("0") + string("cpu") + b"K\x0ctQ")
    tensor = (b"ctorch._utils\n_rebuild_tensor_v2\nq\1(" + storage + b"K\1K\2K\3\x86K\3K\1\x86\x89"
              b"ccollections\nOrderedDict\n)RtR")
    state = b"}" + string("_metadata") + b"h\2sb"
    return (b"\x80\2ccollections\nOrderedDict\n)R(" + string("w") + tensor + b"u" + b"q\2" + state + b".")


def old_program(view=False):
    """The dictionary of a file of the older form: a transposed tensor and one of doubles' worth of bytes, each with a view."""
    def storage(kind, key, n):
        tail = string("v" + key) + b"K\1" + b"K" + bytes([n - 1]) + b"\x87" if view else b"N"
        return b"(" + string("storage") + b"c" + kind + b"\n" + string(key) + string("cpu") + b"K" + bytes([n]) + tail + b"tQ"
    one = (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(b"torch\nFloatStorage", "0", 16) +
           b"K\1K\2K\3\x86K\1K\2\x86\x89NtR")
    two = (b"ctorch._utils\n_rebuild_tensor_v3\n(" + storage(b"torch.storage\nUntypedStorage", "1", 8) +
           b"K\0K\4\x85K\1\x85\x89Nctorch\nfloat8_e5m2\ntR")
    pairs = b"](]" + b"(U\1w" + one + b"e" + (b"](U\1x" + two + b"e" if view else b"") + b"e"
    return b"\x80\2ccollections\nOrderedDict\n" + pairs + b"\x85R."


def old_file():
    head = b"\x80\2\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\2M\xe9\3."
    facts = b"\x80\2}(" + string("little_endian") + b"\x88u."
    keys = b"\x80\2](" + string("1") + string("0") + b"e."
    return (head + facts + old_program(True) + keys + struct.pack("<q", 8) + b"\1" * 8 + struct.pack("<q", 16) + b"\2" * 64)


def archive():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        for name, data in (("a/data.pkl", program()), ("a/byteorder", b"little"), ("a/data/0", b"\0" * 48)):
            z.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def imatrix_gguf():
    """llama.cpp's GGUF form: two matrices of 3 and 2 columns, each with its count of rows."""
    keys = [("general.type", 8, text("imatrix")), ("imatrix.datasets", 9, struct.pack("<IQ", 8, 1) + text("a.txt")),
            ("imatrix.chunk_count", 4, struct.pack("<I", 5)), ("imatrix.chunk_size", 4, struct.pack("<I", 512))]
    tensors = [("a.in_sum2", (3, 1), (1, 2, 3)), ("a.counts", (1, 1), (10,)), ("b.in_sum2", (2, 1), (4, 0)),
               ("b.counts", (1, 1), (20,))]
    return gguf_file(keys, [(name, dims, F32, floats(values)) for name, dims, values in tensors])


def imatrix_dat():
    """llama.cpp's older form, with what was seen at its end."""
    b = struct.pack("<i", 2)
    for name, rows, sums in (("a", 10, (1, 2, 3)), ("b", 20, (4, 0))):
        b += struct.pack("<i", len(name)) + name.encode() + struct.pack(f"<2i{len(sums)}f", rows, len(sums), *sums)
    return b + struct.pack("<2i", 5, 5) + b"a.txt"


def rows():
    """A row of each shape."""
    return ('\ufeff{"instruction":"가","input":"나","output":"다"}\n\n{"question":"q","answer":"a"}\r\n'
            '{"prompt":"p","completion":"c"}\n{"text":"t\\n"}\n'
            '{"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"},'
            '{"role":"assistant","content":"a"}]}\n').encode()


def shard(n_vocab, ids):
    """A token shard, as data/shard.h describes it."""
    width = 2 if n_vocab <= 65536 else 4
    head = struct.pack("<8s4I2Q", b"geulshrd", 1, n_vocab, 2, width, len(ids), 77)
    return head + struct.pack(f"<{len(ids)}{'H' if width == 2 else 'I'}", *ids)


def log_csv():
    """The first two bytes: which format, and the step to resume at."""
    head = "step,loss,learning_rate,grad_norm,tokens_per_second,tokens,targets,epoch,seconds,skipped,eval_loss\n"
    rows = "".join(f"{i},{3 - i / 8},1e-0{i},{0.5 * i},1000.5,512,500,0.0{i},{i},{i // 3},\n" for i in range(1, 5))
    return b"\0\2" + (head + rows + "2,,,,,,,,,,2.75\n3,nan,0.1,-inf,inf,1,1,1,1,1,\n4,torn").encode()


def log_jsonl():
    step = ('{"type":"step","step":%d,"loss":2.5,"learning_rate":1e-05,"grad_norm":null,"tokens_per_second":1e3,'
            '"tokens":512,"targets":500,"epoch":0.5,"seconds":1,"skipped":true,"nonfinite":"grad_norm nan"}\n')
    rest = ('{"type":"evaluation","step":2,"loss":2.25,"best":true}\n'
            '{"type":"sample","step":2,"prompt":"글\\u00e9\\ud83d\\ude00","text":"<b>\\"\\n"}\n'
            '{"type":"event","step":3,"kind":"loss spike","text":"loss 9"}\n')
    return b"\1\2" + (step % 1 + step % 2 + rest + step % 3).encode()


def adapter_gguf():
    """A LoRA adapter as llama.cpp's converter writes it, with geul's keys for rsLoRA: rank 1 of one 3 x 2 matrix."""
    keys = [("general.architecture", 8, text("gptneox")), ("general.type", 8, text("adapter")),
            ("adapter.type", 8, text("lora")), ("adapter.lora.alpha", 6, struct.pack("<f", 2)),
            ("geul.lora.rslora", 7, b"\1"), ("geul.lora.alpha", 6, struct.pack("<f", 2)),
            ("geul.template", 8, text("kullm"))]
    tensors = [("blk.0.ffn_up.weight.lora_a", (2, 1), (1, 2)), ("blk.0.ffn_up.weight.lora_b", (1, 3), (1, 2, 3))]
    return gguf_file(keys, [(name, dims, F32, floats(values)) for name, dims, values in tensors])


def peft_config():
    return (b'{"peft_type":"LORA","r":4,"lora_alpha":8,"use_rslora":true,"bias":"none","modules_to_save":null,'
            b'"init_lora_weights":"gaussian","rank_pattern":{"dense":2},"alpha_pattern":{"layers\\\\.[0-9]+\\\\.mlp.*":3},'
            b'"base_model_name_or_path":"a/b"}')


def u32(value):
    return 4, struct.pack("<I", value)


def strings(values):
    return 9, struct.pack("<IQ", 8, len(values)) + b"".join(map(text, values))


def i32s(values):
    return 9, struct.pack(f"<IQ{len(values)}i", 5, len(values), *values)


def matrix(rows, columns, kind):
    """Small values that differ; of a block type each block has the scale 1/16 and the integers 0 to 31."""
    if kind == F32:
        return floats([((i * 7) % 11 - 5) / 16 for i in range(rows * columns)])
    if kind == F16:
        return struct.pack(f"<{rows * columns}e", *(((i * 7) % 11 - 5) / 16 for i in range(rows * columns)))
    integers = bytes(range(32)) if kind == Q8_0 else bytes((i * 17) % 256 for i in range(16))
    return (struct.pack("<e", 1 / 16) + integers) * (rows * columns // 32)


def model_tensors(width, heads, ff, rows, kind, embedding):
    """The tensors of one layer and what is around it, in geul's order."""
    head = [("token_embd.weight", (width, rows), embedding, matrix(rows, width, embedding))]
    shapes = {"attn_qkv": (3 * width, width), "attn_output": (width, width), "ffn_up": (ff, width), "ffn_down": (width, ff)}
    layer = []
    for name in ("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down"):
        n = shapes.get(name, (width,))[0]
        if name in shapes:
            layer.append((f"blk.0.{name}.weight", shapes[name][::-1], kind, matrix(*shapes[name], kind)))
        else:
            layer.append((f"blk.0.{name}.weight", (n,), F32, floats([1] * n)))
        layer.append((f"blk.0.{name}.bias", (n,), F32, floats([0.125] * n)))
    tail = [("output_norm.weight", (width,), F32, floats([1] * width)),
            ("output_norm.bias", (width,), F32, floats([0] * width)),
            ("output.weight", (width, rows), embedding, matrix(rows, width, embedding))]
    return head + layer + tail


def model_keys(width, heads, ff, rows):
    keys = {"general.architecture": (8, text("gptneox")), "general.name": (8, text("seed")),
            "gptneox.block_count": u32(1), "gptneox.embedding_length": u32(width), "gptneox.feed_forward_length": u32(ff),
            "gptneox.attention.head_count": u32(heads), "gptneox.context_length": u32(32), "gptneox.vocab_size": u32(rows),
            "gptneox.rope.dimension_count": u32(2), "gptneox.rope.freq_base": (6, struct.pack("<f", 1e4)),
            "gptneox.attention.layer_norm_epsilon": (6, struct.pack("<f", 1e-5)),
            "gptneox.use_parallel_residual": (7, b"\1"), "geul.gelu": (8, text("erf")), "geul.template": (8, text("kullm"))}
    return [(name, *value) for name, value in keys.items()]


def byte_texts():
    """The 256 characters that stand for bytes in a byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(other)) for b in range(256)]


def tokenizer_keys(pre):
    """<|endoftext|>, 256 bytes, two merges, one more special token."""
    space = byte_texts()[32]
    tokens = ["<|endoftext|>", *byte_texts(), "ab", space + "a", "<|sep|>"]
    keys = {"tokenizer.ggml.model": (8, text("gpt2")), "tokenizer.ggml.pre": (8, text(pre)),
            "tokenizer.ggml.tokens": strings(tokens), "tokenizer.ggml.token_type": i32s([3] + [1] * 258 + [3]),
            "tokenizer.ggml.merges": strings(["a b", space + " a"]), "tokenizer.ggml.eos_token_id": u32(0),
            "tokenizer.ggml.bos_token_id": u32(0), "tokenizer.ggml.eot_token_id": u32(259),
            "tokenizer.ggml.add_bos_token": (7, b"\0"), "geul.tokenizer.flags": u32(0)}
    if pre == "steps":
        keys["tokenizer.ggml.pre"] = (8, text("gpt-2"))
        keys["geul.tokenizer.normalizer"] = strings(["NFC"])
        keys["geul.tokenizer.added_ids"] = i32s([0, 259])
        keys["geul.tokenizer.added_flags"] = i32s([1, 1 | 2 | 4])
    return [(name, *value) for name, value in keys.items()]


def model(kind):
    width, rows = (8, 8) if kind == F32 else (32, 8)
    return gguf_file(model_keys(width, 2, width, rows), model_tensors(width, 2, width, rows, kind, F32))


def model_with_texts():
    return gguf_file(model_keys(8, 2, 8, 264) + tokenizer_keys("gpt-2"), model_tensors(8, 2, 8, 264, F32, F16))


def checkpoint_keys(kind, optimizer, scale):
    keys = {"general.architecture": (8, text("gptneox")), "general.type": (8, text(kind)),
            "geul.train.version": u32(1), "geul.train.step": (10, struct.pack("<Q", 2)),
            "geul.train.position": (10, struct.pack("<Q", 3)), "geul.train.seed": (10, struct.pack("<Q", 0)),
            "geul.train.optimizer": (8, text(optimizer)), "geul.train.lora_scale": (6, struct.pack("<f", scale)),
            "geul.train.note": (8, text("note"))}
    return [(name, *value) for name, value in keys.items()]


def checkpoint_lora():
    """AdamW's of a rank 1 adapter of attn_qkv, as fuzz_checkpoint.c makes it for the model `plain`."""
    tensors = []
    for half, dims, n in (("a", (8, 1), 8), ("b", (1, 24), 24)):
        for state in ("", "state0.", "state1."):
            tensors.append((f"{state}blk.0.attn_qkv.weight.lora_{half}", dims, F32, floats([0.25] * n)))
    return gguf_file(checkpoint_keys("checkpoint", "adamw", 2), tensors)


def checkpoint_full():
    """SGD's of all weights: each with its momentum."""
    tensors = []
    for name, dims, kind, data in model_tensors(8, 2, 8, 8, F32, F32):
        tensors += [(name, dims, kind, data), ("state0." + name, dims, kind, data)]
    keys = [key for key in model_keys(8, 2, 8, 8) if key[0] != "general.architecture"]
    return gguf_file(keys + checkpoint_keys("model", "sgd", 0), tensors)


put("fuzz_gguf", "version2", gguf(2))
put("fuzz_gguf", "version3", gguf(3))
put("fuzz_safetensors", "two", safetensors())
put("fuzz_pickle", "program", program())
put("fuzz_pickle", "archive", archive())
put("fuzz_pickle", "old_program", old_program())
put("fuzz_pickle", "old_file", old_file())
put("fuzz_imatrix", "gguf", imatrix_gguf())
put("fuzz_imatrix", "dat", imatrix_dat())
put("fuzz_rows", "shapes.jsonl", rows())
put("fuzz_rows", "broken.jsonl", b'{"text":"\xff"}\n{"a":1}\n[1]\n{"output":"","instruction":"x"}\n')
put("fuzz_rows", "array.json", b'[\n{"question":"q","answer":"a"},\n {"text":"t","id":1}, 7]\n')
put("fuzz_rows", "spread.jsonl", b'{\n "question": "q",\n "answer": "a"\n}{\n "text": "t"\n}\n{"text":\n')
put("fuzz_rows", "table.csv", 'Q,A,label\r\n"줄\n""둘""",답,0\r\nq,a\n'.encode())
put("fuzz_rows", "table.tsv", "question\tanswer\n안녕\t네\n".encode("cp949"))
put("fuzz_rows", "shapes_of_others.jsonl",
    b'{"system":"s","conversations":[{"from":"gpt","value":"o"},{"from":"human","value":[{"type":"text","text":"q"}]},'
    b'{"from":"gpt","value":"a","weight":0},{"from":"human","value":"q"},{"from":"gpt","value":"a","train":true}]}\n'
    b'{"prompt":[{"role":"user","content":"q"}],"completion":[{"role":"assistant","content":"a"}]}\n'
    b'{"instruction":"i","input":["1","2"],"output":"o","history":[["q","a"]],"system":"s","id":{"a":1}}\n')
put("fuzz_shard", "narrow", shard(4000, (5, 6, 2, 3999)))
put("fuzz_shard", "wide", shard(70000, (5, 69999, 2)))
put("fuzz_journal", "csv", log_csv())
put("fuzz_journal", "jsonl", log_jsonl())
put("fuzz_adapter", "lora", adapter_gguf())
put("fuzz_peft", "config", peft_config())
put("fuzz_model", "plain", model(F32))
put("fuzz_model", "q8_0", model(Q8_0))
put("fuzz_model", "q4_0", model(Q4_0))
put("fuzz_model", "texts", model_with_texts())
put("fuzz_tokenizer_gguf", "bare", gguf_file(tokenizer_keys("gpt-2"), []))
put("fuzz_tokenizer_gguf", "steps", gguf_file(tokenizer_keys("steps"), []))
put("fuzz_checkpoint", "lora", checkpoint_lora())
put("fuzz_checkpoint", "full", checkpoint_full())
put("fuzz_json", "python", b'\xef\xbb\xbf{"a":NaN,"b":[-Infinity,1e999,1000000000000000019884624838656],"a":0.5e-3,'
    b'"\\ud83d":"\\ud83d\\ude00 \\udc00","z\\u0000":{"Infinity":Infinity}}')
put("fuzz_json", "plain", b'[{"x":true,"y":null},-9223372036854775808,17976931348623157.0E+292,"\\"\\\\"]')
put("fuzz_config", "v4", b'{"model_type":"gpt_neox","hidden_size":32,"num_attention_heads":2,"num_hidden_layers":2,'
    b'"intermediate_size":64,"vocab_size":96,"max_position_embeddings":32,"rotary_pct":0.25,"rotary_emb_base":10000,'
    b'"hidden_act":"gelu_new","layer_norm_eps":1e-5,"use_parallel_residual":false,"tie_word_embeddings":true,'
    b'"attention_bias":true,"bos_token_id":0,"eos_token_id":[2,0,9],"torch_dtype":"float16"}')
put("fuzz_config", "v5", b'{"model_type":"gpt_neox","hidden_size":32,"num_attention_heads":2,"num_hidden_layers":2,'
    b'"intermediate_size":64,"vocab_size":96,"head_dim":16,"rope_parameters":{"rope_theta":10000.0,'
    b'"rope_type":"default","partial_rotary_factor":0.5},"dtype":"float32","eos_token_id":0,"loss":NaN}')
