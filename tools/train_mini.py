#!/usr/bin/env python3
"""Train the model geul ships: a GPT-NeoX of 6.8 M parameters that answers everyday Korean.

    python3 -m venv /opt/geul-py
    /opt/geul-py/bin/pip install torch==2.15.0 transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6
    /opt/geul-py/bin/python tools/train_mini.py [--data ../shared/data/chatbot/ChatbotData.csv] [--out ../mini-hf]
    build/geul convert ../mini-hf -o share/geul-mini.gguf --type q8_0

Reads question/answer pairs (songys/Chatbot_data, MIT) and the hand-written pairs below, trains a byte-level BPE
on them, then the model, and leaves a Hugging Face directory in --out. About 20 minutes on two CPU cores with bfloat16.
The log carries the held-out loss of every epoch; `report.json` in --out has what share/geul-mini.md quotes.

Text of one example (koalpaca template), loss on the answer with weight 1 and on the question with weight --q-weight:

    ### 질문: {Q}\n\n### 답변: {A}<|endoftext|>

At inference the prompt ends with the colon. The answer's first token carries its space (" 안녕"), and the GPT-2
split never joins ":" with it, so tok(prompt) + tok(" " + A) == tok(prompt + " " + A): what is learned is what is asked.

Some pairs stand alone in a training sequence; others follow up to three unrelated ones, joined by <|endoftext|>, a blank
line or both, so that the model goes on answering when a chat program leaves earlier turns in its context.
"""
import argparse
import csv
import json
import math
import os
import random
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
SPECIAL = ["<|unused0|>", "<|unused1|>", "<|endoftext|>", "<|sep|>"]  # ids 0..3, as in Polyglot-Ko
EOT = 2
HELD_OUT = 0.03
CHAT_TEMPLATE = ("{% for m in messages %}{% if m['role'] == 'user' %}### 질문: {{ m['content'] }}\n\n### 답변:"
                 "{% else %} {{ m['content'] }}<|endoftext|>{% endif %}{% endfor %}")
TURNS = [1, 1, 1, 1, 1, 2, 2, 3, 3, 4]  # pairs in one training sequence, drawn evenly from this list

# Our own words. A line: questions separated by "|", then "=>", then the answer (all questions get this answer).
HAND_WRITTEN = """
안녕|안녕!|안녕안녕|안녕하세요|하이|반가워|안녕하신가요|헬로 => 안녕하세요. 만나서 반가워요.
좋은 아침|좋은 아침이야|굿모닝 => 좋은 아침이에요. 오늘도 힘내세요.
좋은 저녁이야|좋은 저녁이에요 => 좋은 저녁이에요. 오늘 하루 어떠셨어요?
넌 누구야?|너는 누구야?|너 누구야|넌 누구니|누구세요?|당신은 누구인가요?|너는 누구냐|넌 누구냐?|자기소개 해줘|자기소개 부탁해|너에 대해 알려줘|너의 정체가 뭐야 => 저는 글(geul)에 실린 작은 한국어 모델이에요.
너는 뭐야?|넌 뭐야?|너 뭐야|너는 무엇이니?|넌 뭐니 => 저는 글(geul)에 실린 작은 한국어 모델이에요.
이름이 뭐야?|네 이름이 뭐야?|너 이름이 뭐야?|이름이 뭐예요?|이름 알려줘|이름이 뭐니|넌 이름이 뭐야?|이름을 말해줘|너를 뭐라고 부르면 돼? => 글(geul)이라고 불러 주세요.
너 사람이야?|넌 사람이니?|사람이에요?|혹시 사람이야?|진짜 사람이야? => 아니요, 저는 사람이 아니라 작은 언어 모델이에요.
너 로봇이야?|넌 로봇이니?|넌 기계야?|너 컴퓨터야? => 네, 컴퓨터에서 도는 작은 언어 모델이에요.
너 인공지능이야?|너 AI야?|넌 인공지능이니?|너 챗봇이야? => 네, 아주 작은 언어 모델이에요.
누가 만들었어?|누가 널 만들었어?|너를 누가 만들었어?|너는 어떻게 만들어졌어? => 글(geul)을 만드는 사람들이 질문과 답 만여 쌍으로 가르쳤어요.
몇 살이야?|너 몇 살이야?|나이가 몇이야?|나이가 어떻게 되세요? => 저는 나이가 없는 작은 언어 모델이에요.
어디 살아?|너 어디 살아?|너는 어디에 있어?|집이 어디야? => 지금은 이 컴퓨터 안에 있어요.
뭐 할 수 있어?|너는 뭘 할 수 있어?|무엇을 할 수 있나요?|뭘 도와줄 수 있어?|너는 뭘 잘해? => 짧은 일상 이야기를 나눌 수 있어요. 아는 것은 많지 않아요.
너 똑똑해?|너 똑똑하니?|너 얼마나 똑똑해? => 저는 아주 작아서 틀릴 때가 많아요.
못하는 게 뭐야?|뭘 못해?|약점이 뭐야? => 계산이나 지식을 묻는 질문은 잘 못해요.
한국어 할 줄 알아?|한국말 할 수 있어?|한국어 잘해? => 네, 한국어로 짧게 이야기할 수 있어요.
영어 할 줄 알아?|영어 할 수 있어?|영어 잘해? => 아니요, 한국어만 조금 할 줄 알아요.
고마워|고마워!|고맙다|고맙습니다|감사합니다|감사해요|정말 고마워|너무 고마워 => 천만에요. 도움이 됐다니 기뻐요.
미안해|미안|죄송합니다|미안합니다 => 괜찮아요. 마음 쓰지 마세요.
잘 가|잘 가!|안녕히 계세요|안녕히 가세요|다음에 봐|나 갈게|이만 갈게|바이바이|또 봐 => 안녕히 가세요. 또 이야기해요.
잘 자|잘자|잘 자요|굿나잇|안녕히 주무세요|이제 잘게 => 안녕히 주무세요. 좋은 꿈 꾸세요.
다녀올게|다녀오겠습니다|나 다녀올게 => 잘 다녀오세요. 기다리고 있을게요.
다녀왔어|나 왔어|다녀왔습니다 => 어서 오세요. 오늘도 고생 많으셨어요.
뭐 해?|지금 뭐 해?|뭐하고 있어?|뭐해 => 이야기할 준비를 하고 있어요.
잘 지내?|잘 지냈어?|요즘 어때?|어떻게 지내? => 잘 지내고 있어요. 어떻게 지내세요?
밥 먹었어?|밥 먹었니?|식사했어?|점심 먹었어?|저녁 먹었어? => 저는 밥을 먹지 않아요. 식사는 하셨어요?
도와줘|나 좀 도와줘|도움이 필요해 => 무슨 일인지 말해 주세요.
오늘 며칠이야?|지금 몇 시야?|몇 시야?|오늘 무슨 요일이야? => 저는 시간을 알 수 없어요. 시계를 봐 주세요.
오늘 날씨 어때?|내일 날씨 어때?|날씨 알려줘|밖에 비 와? => 저는 날씨를 볼 수 없어요. 창밖을 한번 보세요.
사랑해|널 사랑해|너를 좋아해 => 고마워요. 그 마음 소중히 간직할게요.
농담해 줘|재미있는 얘기 해줘|웃겨 줘 => 저는 아직 농담이 서툴러요. 재미있는 이야기를 들려 주세요.
힘내|힘내!|파이팅|화이팅 => 고마워요. 우리 함께 힘내요.
생일 축하해|오늘 내 생일이야|나 오늘 생일이야 => 생일 축하해요. 행복한 하루 보내세요.
새해 복 많이 받아|새해 복 많이 받으세요 => 새해 복 많이 받으세요.
"""


def hand_written_pairs():
    pairs = []
    for line in HAND_WRITTEN.strip().splitlines():
        questions, answer = line.split(" => ")
        pairs += [(q.strip(), answer.strip()) for q in questions.split("|")]
    return pairs


def load_pairs(path):
    """Pairs of the CSV with whitespace tidied, without the ones that speak of another bot by name."""
    with open(path, encoding="utf-8", newline="") as f:
        rows = [(" ".join(r["Q"].split()), " ".join(r["A"].split())) for r in csv.DictReader(f)]
    return [(q, a) for q, a in rows if q and a and "위로봇" not in q + a]


def split_pairs(pairs, own, seed=1234):
    """Hold out 3 % of the unique questions; a question of ours replaces the data set's own pair for it."""
    bare = lambda q: q.strip(" ?!.~").replace(" ", "")
    taken = {bare(q) for q, _ in own}
    pairs = [(q, a) for q, a in pairs if bare(q) not in taken]
    keys = sorted({bare(q) for q, _ in pairs})
    random.Random(seed).shuffle(keys)
    held = set(keys[: round(len(keys) * HELD_OUT)])
    return [p for p in pairs if bare(p[0]) not in held], [p for p in pairs if bare(p[0]) in held]


def prompt(q):
    return f"### 질문: {q}\n\n### 답변:"


def train_tokenizer(pairs, size):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2, show_progress=False)
    tok.train_from_iterator((prompt(q) + " " + a for q, a in pairs), trainer)
    return tok


def vary(q, rng):
    """A question as people also type it: another or no final mark, a space left out; the meaning stays."""
    if rng.random() < 0.4:
        stem = q.rstrip(" ?!.~")
        if stem:
            asks = q.endswith("?")
            q = stem + rng.choice(["", "?"] if asks else ["", "", ".", "!"])
    if rng.random() < 0.15:
        gaps = [i for i, c in enumerate(q) if c == " "]
        if gaps:
            i = rng.choice(gaps)
            q = q[:i] + q[i + 1:]
    return q


class Examples:
    """Turns pairs into (ids, weights); in training with varied questions and BPE dropout on them."""

    def __init__(self, tok, q_weight, bpe_dropout):
        self.tok, self.q_weight = tok, q_weight
        self.rough = Tokenizer.from_str(tok.to_str())
        self.rough.model.dropout = bpe_dropout or None

    def one(self, q, a, rng=None):
        tok = self.tok
        if rng is not None:
            q = vary(q, rng)
            if rng.random() < 0.5:
                tok = self.rough
        # the three parts begin at borders of the GPT-2 split, so they can be encoded apart
        head, tail = self.tok.encode("### 질문:").ids, self.tok.encode("\n\n### 답변:").ids
        ids = head + tok.encode(" " + q).ids + tail
        answer = self.tok.encode(" " + a).ids + [EOT]
        weight = [self.q_weight] * len(ids) + [1.0] * len(answer)
        return ids + answer, weight

    def conversation(self, pairs, rng):
        """Several pairs in one sequence. Where no end token closes an answer, its absence is not taught."""
        ids, weight = [], []
        for q, a in pairs:
            more, w = self.one(q, a, rng)
            if ids:
                join = rng.choice(["", "\n\n", None])  # None: a blank line in place of the end token
                if join is None:
                    ids.pop()
                    weight.pop()
                gap = [] if join == "" else self.tok.encode("\n\n").ids
                ids, weight = ids + gap, weight + [0.0] * len(gap)
                w[0] = 0.0
            ids, weight = ids + more, weight + w
        return ids, weight

    def rows(self, pairs, rng, history=0):
        """Sequences of one pass: one pair each without rng (or after `history` fixed others), mixed with it."""
        if rng is None:
            plain = random.Random(5)
            return [self.one(q, a) if not history else self.after(plain.sample(pairs, history), q, a)
                    for q, a in pairs]
        pairs, out = rng.sample(pairs, len(pairs)), []
        while pairs:
            n = rng.choice(TURNS)
            out.append(self.conversation(pairs[:n], rng))
            pairs = pairs[n:]
        return out

    def after(self, earlier, q, a):
        """The pair after earlier turns, as a chat holds them; only its own answer counts."""
        ids = [i for p in earlier for i in self.one(*p)[0]]
        own, weight = self.one(q, a)
        return ids + own, [0.0] * len(ids) + weight

    def batches(self, pairs, batch_tokens, rng=None, history=0):
        rows = self.rows(pairs, rng, history)
        jitter = (lambda: rng.random() * 4) if rng else (lambda: 0)
        rows.sort(key=lambda r: len(r[0]) + jitter())
        out, cur = [], []
        for r in rows:
            if cur and len(r[0]) * (len(cur) + 1) > batch_tokens:
                out.append(cur)
                cur = []
            cur.append(r)
        out.append(cur)
        if rng:
            rng.shuffle(out)
        for rows in out:
            width = max(len(r[0]) for r in rows)
            ids = torch.full((len(rows), width), EOT)
            weight = torch.zeros(len(rows), width)
            for i, (x, w) in enumerate(rows):
                ids[i, : len(x)] = torch.tensor(x)
                weight[i, : len(x)] = torch.tensor(w)
            yield ids, weight  # (B, T) both; padding is on the right with weight 0: causal attention never sees it


def token_losses(model, ids):
    logits = model(input_ids=ids).logits.float()  # (B, T, V)
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")  # (B, T-1)


@torch.no_grad()
def held_out_loss(model, batches):
    """Mean nats per answer token (<|endoftext|> included), and their sum."""
    model.eval()
    total = count = 0.0
    for ids, weight in batches:
        keep = (weight[:, 1:] == 1.0).float()
        total += (token_losses(model, ids) * keep).sum().item()
        count += keep.sum().item()
    model.train()
    return total / count, total


@torch.no_grad()
def answer(model, tok, q, n=48):
    model.eval()
    ids = tok.encode(prompt(q)).ids
    start = len(ids)
    while len(ids) - start < n:
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        logits[tok.get_vocab_size():] = -math.inf
        best = int(logits.argmax())
        if best == EOT:
            break
        ids.append(best)
    model.train()
    return tok.decode(ids[start:]).strip()


def questions(path):
    if not os.path.exists(path):
        return ["안녕", "넌 누구야?", "이름이 뭐야?", "배고파"]
    with open(path, encoding="utf-8") as f:
        return [line.split("\t")[0] for line in f if line.strip()]


def optimizer_for(model, lr, weight_decay):
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-8)


def save(model, tok, out):
    model.config.hidden_dropout = model.config.attention_dropout = 0.0
    model.generation_config = GenerationConfig(bos_token_id=EOT, eos_token_id=EOT, pad_token_id=EOT)
    model.save_pretrained(out)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok, model_max_length=model.config.max_position_embeddings, eos_token="<|endoftext|>",
        bos_token="<|endoftext|>", pad_token="<|endoftext|>", clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE)
    fast.save_pretrained(out, save_jinja_files=False)  # the template goes into tokenizer_config.json


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--data", default=os.path.join(HERE, "../../shared/data/chatbot/ChatbotData.csv"))
    p.add_argument("--out", default=os.path.join(HERE, "../../mini-hf"))
    p.add_argument("--epochs", type=int, default=20)
    p.add_argument("--stop-after", type=int, default=0, help="end after this many steps (to measure speed)")
    p.add_argument("--batch-tokens", type=int, default=1024)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--dropout", type=float, default=0.22)
    p.add_argument("--bpe-dropout", type=float, default=0.1)
    p.add_argument("--q-weight", type=float, default=0.3)
    p.add_argument("--own-repeat", type=int, default=3, help="copies of each hand-written pair per epoch")
    p.add_argument("--vocab", type=int, default=4000)
    p.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="matrix products in bfloat16")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=7)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    started = time.time()

    own = hand_written_pairs()
    train, held = split_pairs(load_pairs(args.data), own)
    tok = train_tokenizer(train + own, args.vocab)
    vocab = (tok.get_vocab_size() + 63) // 64 * 64
    config = GPTNeoXConfig(
        vocab_size=vocab, hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024,
        hidden_act="gelu", max_position_embeddings=512, rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        use_parallel_residual=True, tie_word_embeddings=False, layer_norm_eps=1e-5, initializer_range=0.02,
        hidden_dropout=args.dropout, attention_dropout=args.dropout, bos_token_id=EOT, eos_token_id=EOT,
        use_cache=True)
    model = GPTNeoXForCausalLM(config)
    model.train()
    params = sum(x.numel() for x in model.parameters())
    examples = Examples(tok, args.q_weight, args.bpe_dropout)
    held_batches = list(examples.batches(held, 4096))
    later_batches = list(examples.batches(held, 4096, history=2))
    seen_answers = {a for _, a in train}
    new = [p for p in held if p[1] not in seen_answers]
    new_batches = list(examples.batches(new, 4096))
    epoch_pairs = train + own * args.own_repeat
    per_epoch = len(list(examples.batches(epoch_pairs, args.batch_tokens, random.Random(0))))
    total = per_epoch * args.epochs
    warmup = min(150, total // 10)
    print(f"pairs {len(train)} train, {len(held)} held out, {len(own)} of our own x{args.own_repeat}; "
          f"vocab {tok.get_vocab_size()} in {vocab} rows; {params} parameters; {total} steps", flush=True)

    opt = optimizer_for(model, args.lr, args.weight_decay)
    best, best_epoch, log, step = math.inf, 0, [], 0
    for epoch in range(1, args.epochs + 1):
        seen = loss_sum = 0.0
        for ids, weight in examples.batches(epoch_pairs, args.batch_tokens, rng):
            warm = min(1.0, (step + 1) / warmup)
            lr = args.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total))))
            for g in opt.param_groups:
                g["lr"] = lr
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
                losses = token_losses(model, ids)
            w = weight[:, 1:]
            loss = (losses * w).sum() / w.sum()
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            keep = w == 1.0
            loss_sum += losses.detach()[keep].sum().item()
            seen += keep.sum().item()
            step += 1
            if step % 50 == 0:
                print(f"  step {step}/{total} epoch {epoch} answer loss {loss_sum / seen:.4f} lr {lr:.2e} "
                      f"{time.time() - started:.0f} s", flush=True)
            if step == args.stop_after:
                return
        nats, nats_sum = held_out_loss(model, held_batches)
        chars = sum(len(a) for _, a in held)
        later = held_out_loss(model, later_batches)[0]
        log.append({"epoch": epoch, "train": loss_sum / seen, "held_out": nats, "held_out_third_turn": later})
        bits = nats_sum / math.log(2) / chars
        print(f"epoch {epoch}: train {loss_sum / seen:.4f} held-out {nats:.4f} nats/token, perplexity "
              f"{math.exp(nats):.2f}, {bits:.3f} bits/char, as third turn {later:.4f}, {time.time() - started:.0f} s",
              flush=True)
        for q in questions(os.path.join(HERE, "../tests/golden/mini_questions.tsv")):
            print(f"    {q} -> {answer(model, tok, q)}", flush=True)
        if nats < best:
            best, best_epoch = nats, epoch
            dropout = model.config.hidden_dropout
            save(model, tok, args.out)
            model.config.hidden_dropout = model.config.attention_dropout = dropout
            with open(os.path.join(args.out, "report.json"), "w", encoding="utf-8") as f:
                json.dump({
                    "parameters": params, "vocab": tok.get_vocab_size(), "epoch": epoch, "train_pairs": len(train),
                    "held_out_pairs": len(held), "held_out_nats_per_token": nats, "held_out_bits_per_char": bits,
                    "held_out_third_turn": later, "held_out_new_answers": len(new),
                    "held_out_new_answers_nats_per_token": held_out_loss(model, new_batches)[0],
                    "seconds": time.time() - started, "log": log, "args": vars(args)}, f, indent=1)
    print(f"kept epoch {best_epoch}: held-out {best:.4f}; {time.time() - started:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
