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
    return struct.pack("<Q", len(s)) + s.encode()


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
    b = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for key, kind, value in keys:
        b += text(key) + struct.pack("<I", kind) + value
    for i, (name, dims, _) in enumerate(tensors):
        b += text(name) + struct.pack("<I2QIQ", 2, *dims, 0, 32 * i)
    b += b"\0" * (-len(b) % 32)
    for _, _, values in tensors:
        b += struct.pack(f"<{len(values)}f", *values).ljust(32, b"\0")
    return b


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
    b = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for key, kind, value in keys:
        b += text(key) + struct.pack("<I", kind) + value
    for i, (name, dims, _) in enumerate(tensors):
        b += text(name) + struct.pack("<I2QIQ", 2, *dims, 0, 32 * i)
    b += b"\0" * (-len(b) % 32)
    for _, _, values in tensors:
        b += struct.pack(f"<{len(values)}f", *values).ljust(32, b"\0")
    return b


def peft_config():
    return (b'{"peft_type":"LORA","r":4,"lora_alpha":8,"use_rslora":true,"bias":"none","modules_to_save":null,'
            b'"init_lora_weights":"gaussian","rank_pattern":{"dense":2},"alpha_pattern":{"layers\\\\.[0-9]+\\\\.mlp.*":3},'
            b'"base_model_name_or_path":"a/b"}')


put("fuzz_gguf", "version2", gguf(2))
put("fuzz_gguf", "version3", gguf(3))
put("fuzz_safetensors", "two", safetensors())
put("fuzz_pickle", "program", program())
put("fuzz_pickle", "archive", archive())
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
