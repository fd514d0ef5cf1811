"""Tokenizer goldens: small tokenizer.json files and what Hugging Face tokenizers 0.23.3 makes of hard strings.

Called by make.py. All training text here is our own. For each tokenizer, tok/<name>.json and tok/<name>.tsv with a line
per string: hex of its UTF-8, TAB, ids of encode(add_special_tokens=False), TAB, hex of decode(ids, False).
"""
import json
import os
import shutil

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
SPECIAL = ["<|unused0|>", "<|unused1|>", "<|endoftext|>", "<|sep|>"]
POLYGLOT_EXTRA = ["<|acc|>", "<|tel|>", "<|rrn|>"]
FULL_SIZE = 403  # 400 entries and the three of POLYGLOT_EXTRA; the model of full/ has 448 rows

CORPUS = """
글은 작은 도구입니다. 한국어 문장을 읽고 이어서 씁니다.
오늘은 날씨가 맑고 바람이 시원해서 산책하기 좋은 날이에요.
내일은 비가 온다고 하니 우산을 꼭 챙기세요.
우리는 도서관에서 책을 빌려 읽고 이야기를 나누었습니다.
질문: 물은 몇 도에서 끓나요? 답변: 물은 100도에서 끓습니다.
### 질문: 안녕하세요?

### 답변: 안녕하세요. 무엇을 도와드릴까요?
서울에서 부산까지는 기차로 두 시간 반쯤 걸립니다.
컴퓨터는 숫자로 모든 것을 나타냅니다. 글자도 숫자입니다.
한글은 자음과 모음을 모아 쓰는 글자입니다. 가나다라마바사아자차카타파하.
그는 밥을 먹고 나서 커피를 마셨다. 그녀는 차를 마셨다.
학생들이 운동장에서 축구를 하고 있습니다. 정말 재미있어 보여요!
이 문장은 길지도 짧지도 않습니다. 그러나 그런대로 쓸모가 있습니다.
감사합니다. 고맙습니다. 미안합니다. 괜찮습니다. 반갑습니다.
The quick brown fox doesn't jump over the lazy dog; it's asleep, isn't it?
A small model reads the words and writes the next word. We've seen that they're right.
Numbers such as 10, 100, 1000, 2024 and 3.14 are common in the text.
int main(void) { return 0; }  // a program in the C language
for (int i = 0; i < n; i++) { sum += values[i]; }
if the weather is good, we will walk in the park and read there.
https://example.com/path?query=value&other=1 and mail@example.com are addresses.
ℌello ﬁne ①②③ Ａ Ｂ Ｃ ａｂｃ ｶﾀｶﾅ 東京 漢字
"""

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")

HARD = [
    # empty, spaces, ends of lines
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\t\t \t", "\r\n", "\r\n\r\n", "a\r\nb", "\r", " \n ", "  \n  \n  ",
    "a b", "a  b", "a   b", "a    b ", " leading", "  leading", "trailing ", "trailing  ", "end\n", "end \n", "\n start",
    "tab\tbetween\t\ttabs", "a \t b", "x\n\n\n\ny", "\u00a0", "a\u00a0b", "a\u00a0 \u00a0b", "전각\u3000공백\u3000\u3000둘",
    "\u2002en\u2003em\u2009thin", "line\u2028sep\u2029para", "\u0085next", "\x0b\x0cvt ff", "\x1c\x1d\x1e\x1f seps",
    "zero\u200bwidth\u200cnon\u200djoin", "\ufeffbom", "\u180emvs", "word\u2060joiner", " \u3000 \u00a0 x",
    # Korean
    "안녕하세요", "안녕하세요. 반갑습니다!", "### 질문: 한글은 무엇인가요?\n\n### 답변:", "한국어 문장을 읽고 이어서 씁니다.",
    "\u1112\u1161\u11ab\u1100\u1173\u11af", "\u1112\u1161\u11ab\uae00 \uac00\u11a8", "ㄱㄴㄷ ㅏㅑㅓ ㅋㅋㅋㅋ ㅠㅠ",
    "\uffa1\uffa2\uffc2 반각 자모", "\u115f\u1161 filler \u3164", "\ua960\ud7b0 옛한글 \u119e \u1140", "꽥뷁쀍 뢟",
    "글(geul)은C로 쓴program이다", "3월 1일에 10,000원을 냈다", "서울특별시청앞광장에서만나기로했던사람들이모두돌아갔다",
    "“큰따옴표”와 ‘작은따옴표’… 그리고—줄표", "韓國語와 漢字 혼용", "東京とソウル ｶﾀｶﾅ ひらがな", "가\u0301나\u0308",
    # English and contractions
    "it's we're they've I'm you'll he'd don't", "IT'S WE'RE THEY'VE I'M YOU'LL HE'D DON'T", "'s 're 'LL 'Ve", "''s '' 's's",
    "it\u2019s don\u2019t", "'tis the dogs' 'reason", "\u017fhort 's\u017f '\u017f \u212aelvin", "Hello,world!Hello, world!",
    "CamelCaseAndsnake_case_and-kebab", "e.g. i.e. etc... ?!?!", "naïve café résumé", "nai\u0308ve cafe\u0301",
    # digits
    "0 1 12 123 1234 12345 123456", "3.14159 -2e10 1,000,000", "٠١٢٣ ०१२ 一二三 ⅣⅧ ½¾ ²³ ①②", "𝟎𝟏𝟐 １２３ a1b2c3 1st",
    "2024-05-06T07:08:09Z", "x²+y³=z⁴", "12가34나 5 6", "\u0660\u0661a\u0662",
    # compatibility forms
    "ﬁ ﬂ ﬃ Ａｂｃ ㈜ ㎏ ㎢ ℃ Å Å ™", "\u1e9b\u0323 \ufb2c \u03d4", "q\u0307\u0323 q\u0323\u0307", "\u0344 \u0958 \u2adc",
    "㉠㉮㈀ ㋿ ﷺ", "\u00bd\u2044\u2082 ª º ſ", "\ud55c\u302e\uae00\u302f",
    # emoji, flags, combining
    "👍", "👨‍👩‍👧‍👦 가족", "🇰🇷🇺🇸🇯🇵", "👋🏽 ❤️ ☺︎", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "1️⃣#️⃣",
    "e\u0301\u0302\u0303\u0304\u0305", "Z̷͈͝a̸l̵g̶o̴", "\u0301 alone", "a\u0300\u0316\u0301",
    # other scripts
    "שלום עולם", "مرحبا بالعالم", "\u202eright\u202c left", "नमस्ते दुनिया", "ภาษาไทยไม่มีช่องว่าง", "ελληνικά Σίσυφος ς",
    "Привет, мир!", "İstanbul ı ß ẞ", "ქართული Հայերեն", "𠀀𠀁𪜀 𫝀", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒻𝑜𝓃𝓉", "\U0010ffff\U000f0000\ue000",
    # control, NUL, replacement, noncharacters
    "\x00", "a\x00b", "\x01\x02\x07\x08\x1b[0m", "\x7f\x80\x9f", "\ufffd", "a\ufffd\ufffdb", "\uffff\ufffe", "\ufdd0",
    # code, addresses
    "int main(void) { return 0; }", "for (i=0;i<n;i++){\n\tx[i] += 1;\n}\n", "def f(x):\n    return x**2\n\n\nprint(f(3))",
    "https://example.com/a/b?c=d&e=%ED%95%9C#f", "user.name+tag@example.co.kr", "C:\\dir\\file.txt ~/.config $HOME",
    '{"key": [1, 2.5, null], "글": "값\\n"}', "<p class=\"x\">글</p><!-- -->", "a|b||c &amp; `code` **bold** __x__",
    "SELECT * FROM t WHERE a='b';--", "1+1=2; 7/2==3; !true && ~0", "\\u0041 \\n \\\\", "@@##$$%%^^&&**(())", "-----=====_____",
    # added and special tokens
    "<|endoftext|>", "a<|endoftext|>b", "<|endoftext|><|endoftext|>", "<|sep|> <|unused0|>", " <|endoftext|> ", "<|endoftext",
    "<|ENDOFTEXT|>", "<|end<|endoftext|>oftext|>", "가<|sep|>나", "끝<|endoftext|>\n\n처음", "<|endoftext|>\n", "\n<|sep|>  x",
    "<|acc|> 계좌 <|tel|>전화<|rrn|>", "<|acc||tel|>",
    "<L>", "a <L> b", "a  <L>  b", "a<L>b", "<R>", "a <R> b", "a  <R>  b", "a<R>b", "\n<L>\n", "\n<R>\n", "<L><R><L>",
    "word", "a word here", "password words word.", "word_ word1 1word", "한word글 word", "wordword", "(word)", "word",
    "Norm token", "norm TOKEN ﬁx", "ﬁx fix Ａdd Add", "가감 \u1100\u1161\u1100\u1161\u11b7 가감", "각\u11a8", "x<B>  y", "  <B>  ",
    "한글토큰", "이한글토큰은 한글토큰", "two words", "two  words two words", "\u3000<L>\u3000<R>\u3000", "a\t<L>\t<R>\tb", "가<W>나 <W>, <W>",
    # long
    "x" * 300, "가" * 80, " " * 70, "ab " * 20, "\n" * 40, "1234567890" * 5, "안녕하세요" * 10, "!" * 40, "aA1 가!" * 6,
]


def byte_level(normalizer=None, pre=None, size=380, special=SPECIAL, **byte_level_args):
    """A byte-level BPE trained on CORPUS; pre are pre-tokenizers that come before ByteLevel."""
    args = {"add_prefix_space": False, "use_regex": True, **byte_level_args}
    tok = Tokenizer(models.BPE())
    if normalizer:
        tok.normalizer = normalizer
    level = pre_tokenizers.ByteLevel(**args)
    tok.pre_tokenizer = pre_tokenizers.Sequence([*pre, level]) if pre else level
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    # one line at a time and in order: equal counts are then merged in the same order every time
    tok.train_from_iterator(CORPUS.strip().split("\n") + ["\n\n"] * 3, trainer)
    return tok


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(pattern, behavior, invert)


def with_added(normalizer):
    tok = byte_level(normalizer=normalizer)
    tok.add_tokens([
        AddedToken("<L>", lstrip=True, normalized=False), AddedToken("<R>", rstrip=True, normalized=False),
        AddedToken("<B>", lstrip=True, rstrip=True, normalized=False),
        AddedToken("word", single_word=True, normalized=False), AddedToken("<W>", single_word=True, normalized=True),
        AddedToken("Norm", normalized=True), AddedToken("TOKEN", normalized=False), AddedToken("ﬁx", normalized=True),
        AddedToken("가감", normalized=True), AddedToken("Ａdd", normalized=False),
        AddedToken("한글토큰", normalized=True), AddedToken("two words", normalized=True)])
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in POLYGLOT_EXTRA])
    return tok


def edited(tok, **model):
    """The same tokenizer with fields of its model replaced in the JSON."""
    d = json.loads(tok.to_str())
    d["model"].update(model)
    return d


def ignore_merges():
    """Whole words that no merge reaches: found only because ignore_merges looks the word up first."""
    d = edited(byte_level(), ignore_merges=True)
    vocab = d["model"]["vocab"]
    alphabet = byte_level()
    for text in [" weather", "안녕하세요", " 한국어", "https", "aA", "\n\n\n"]:
        word = "".join(p for p, _ in alphabet.pre_tokenizer.pre_tokenize_str(text))
        vocab.setdefault(word, len(vocab))
    return d


def byte_fallback():
    """SentencePiece-like BPE: characters, and <0xNN> for the bytes of what is not in the vocabulary."""
    vocab = {t: i for i, t in enumerate(["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)])}
    merges = []
    for ch in "▁abcdefghinorstuwy가나는다안녕하세요글.,":
        vocab[ch] = len(vocab)
    for a, b in [("▁", "a"), ("h", "e"), ("t", "he"), ("▁", "the"), ("안", "녕"), ("하", "세"), ("하세", "요"),
                 ("안녕", "하세요"), ("▁", "안녕하세요"), ("i", "n"), ("▁", "▁")]:
        vocab[a + b] = len(vocab)
        merges.append((a, b))
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                     decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tok


def old_merges():
    d = edited(byte_level())
    d["model"]["merges"] = [" ".join(m) if isinstance(m, list) else m for m in d["model"]["merges"]]
    for key in ("ignore_merges", "byte_fallback"):  # files of that age have neither
        d["model"].pop(key)
    return d


def tokenizers():
    nfc, nfd, nfkc, nfkd = normalizers.NFC(), normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD()
    level = {"use_regex": False}
    return {
        "bl_regex": byte_level(),
        "bl_noregex": byte_level(use_regex=False),
        "bl_prefix": byte_level(add_prefix_space=True),
        "bl_old_merges": old_merges(),
        "bl_ignore_merges": ignore_merges(),
        "nfc_split_gpt4": byte_level(nfc, [split(Regex(GPT4))], **level),
        "split_qwen2": byte_level(None, [split(Regex(QWEN2))], **level),
        "split_gpt2": byte_level(None, [split(Regex(GPT2))], **level),
        "split_removed": byte_level(None, [split(Regex(r"\s+"), "removed")], **level),
        "split_inverted": byte_level(None, [split(Regex(GPT2), "removed", invert=True)], **level),
        "split_string_next": byte_level(None, [split(" ", "merged_with_next")], **level),
        "split_previous": byte_level(None, [split(Regex(r"[.,!?]"), "merged_with_previous")], **level),
        "split_contiguous": byte_level(None, [split(Regex(r"[\p{P}\p{S}]"), "contiguous")], **level),
        "nfd": byte_level(nfd),
        "nfkc": byte_level(nfkc),
        "nfkd": byte_level(nfkd),
        "norm_sequence": byte_level(normalizers.Sequence([nfkd, nfc])),
        "whitespace_digits": byte_level(None, [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)], **level),
        "digits_runs": byte_level(None, [pre_tokenizers.Digits(False)]),
        "digits_prefix": byte_level(None, [pre_tokenizers.Digits(True)], add_prefix_space=True),
        "added": with_added(None),
        "added_nfkc": with_added(nfkc),
        "byte_fallback": byte_fallback(),
    }


def compact(path, tok):
    d = tok if isinstance(tok, dict) else json.loads(tok.to_str())
    with open(path, "w", encoding="utf-8") as f:
        json.dump(d, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


def write_cases(path, tok):
    with open(path, "w", encoding="utf-8") as f:
        for text in HARD:
            ids = tok.encode(text, add_special_tokens=False).ids
            back = tok.decode(ids, skip_special_tokens=False)
            f.write(f"{text.encode().hex()}\t{' '.join(map(str, ids))}\t{back.encode().hex()}\n")


def full_tokenizer():
    tok = byte_level(normalizers.NFC(), size=400)
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in POLYGLOT_EXTRA])
    assert tok.get_vocab_size() == FULL_SIZE, tok.get_vocab_size()
    return tok


CHAT_TEMPLATE = ("{% for m in messages %}{% if m['role'] == 'user' %}### 질문: {{ m['content'] }}\n\n### 답변:"
                 "{% else %} {{ m['content'] }}<|endoftext|>{% endif %}{% endfor %}")
FULL_PROMPT = "### 질문: 오늘은 날씨가 어때요?\n\n### 답변: 맑고 The wind"


def write_full_tokenizer(folder):
    """tokenizer files of full/; returns the number of ids that may be sampled, and the ids of its prompt."""
    tok = full_tokenizer()
    compact(os.path.join(folder, "tokenizer.json"), tok)
    config = {"add_prefix_space": False, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
              "unk_token": "<|endoftext|>", "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False,
              "model_max_length": 128, "tokenizer_class": "PreTrainedTokenizerFast",
              "added_tokens_decoder": {str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False,
                                                "single_word": False, "special": True}
                                       for t, i in ((t, tok.token_to_id(t)) for t in SPECIAL + POLYGLOT_EXTRA)}}
    generation = {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 0, "transformers_version": "4.27.4"}
    special = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    for name, value in (("tokenizer_config", config), ("generation_config", generation), ("special_tokens_map", special)):
        with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as f:
            json.dump(value, f, ensure_ascii=False, indent=1)
            f.write("\n")
    write_cases(os.path.join(folder, "hard.tsv"), tok)
    return FULL_SIZE, tok.encode(FULL_PROMPT).ids


def write_full_text(folder, tokens, greedy):
    """prompt.txt and completion.txt: the prompt and the bytes of its greedy continuation, broken UTF-8 included."""
    tok = full_tokenizer()
    assert tok.decode(tokens, skip_special_tokens=False) == FULL_PROMPT
    byte_of = {c: b for b, c in zip(*_byte_alphabet())}
    out = bytearray()
    for i in greedy:
        piece = tok.id_to_token(i)
        out += piece.encode() if piece in SPECIAL + POLYGLOT_EXTRA else bytes(byte_of[c] for c in piece)
    for name, data in (("prompt.txt", FULL_PROMPT.encode()), ("completion.txt", bytes(out))):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)


def _byte_alphabet():
    """GPT-2's bytes and the characters that stand for them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return plain + others, [chr(b) for b in plain] + [chr(256 + n) for n in range(len(others))]


def main():
    folder = os.path.join(HERE, "tok")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for name, tok in tokenizers().items():
        path = os.path.join(folder, name + ".json")
        compact(path, tok)
        loaded = Tokenizer.from_file(path)  # what HF makes of the file that is committed
        write_cases(os.path.join(folder, name + ".tsv"), loaded)
        print(f"tok/{name}: {loaded.get_vocab_size()} entries, {len(HARD)} strings", flush=True)


if __name__ == "__main__":
    main()
