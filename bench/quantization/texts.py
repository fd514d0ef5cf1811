#!/usr/bin/env python3
"""Texts for bench/quantization/quality.py, of what share/geul-mini.gguf was trained on:

    bench/quantization/texts.py ../shared/data/chatbot/ChatbotData.csv DIR

writes DIR/held-out.txt, the question/answer pairs that tools/train_mini.py holds out of training, and
DIR/calibration.txt, 2,000 of the others, for `geul imatrix`. Needs what tools/train_mini.py needs.
"""
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import train_mini

if len(sys.argv) != 3:
    sys.exit(__doc__)
pairs = train_mini.load_pairs(sys.argv[1])
train, held = train_mini.split_pairs(pairs, train_mini.hand_written_pairs())
for name, chosen in (("held-out", random.Random(1).sample(held, len(held))),
                     ("calibration", random.Random(2).sample(train, 2000))):
    text = "".join(f"{train_mini.prompt(q)} {a}<|endoftext|>" for q, a in chosen)
    pathlib.Path(sys.argv[2], f"{name}.txt").write_text(text, encoding="utf-8")
