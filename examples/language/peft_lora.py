#!/usr/bin/env python3
"""Fine-tunes BERT to classify texts by PEFT's LoRA, as `ringlet tune --method "lora(rank=4)"` does.

The same rank, layers, optimizer, learning rates and batches, without dropout; the head (pooler and classifier) learns
as it is. Prints the scores on the held-out examples as JSON. Needs torch, transformers, peft.
"""
import argparse
import json
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def words(key, stream):
    """Philox 4x32-10, as ringlet/core/random.cpp draws it."""
    count = 0
    while True:
        block, k = [count & MASK32, count >> 32, stream & MASK32, stream >> 32], [key & MASK32, key >> 32]
        for _ in range(10):
            p0, p1 = 0xD2511F53 * block[0], 0xCD9E8D57 * block[2]
            block = [(p1 >> 32) ^ block[1] ^ k[0], p1 & MASK32, (p0 >> 32) ^ block[3] ^ k[1], p0 & MASK32]
            k = [(k[0] + 0x9E3779B9) & MASK32, (k[1] + 0xBB67AE85) & MASK32]
        yield from block
        count += 1


def epochs(count, seed):
    """The order in which `ringlet tune` shows the examples."""
    epoch = 0
    while True:
        key = 0xCBF29CE484222325
        for byte in b"examples":
            key = ((key ^ byte) * 0x100000001B3) & MASK64
        key = mix(key ^ mix((epoch + 0x9E3779B97F4A7C15) & MASK64))
        draws = words(seed, mix(key ^ mix(0xD1B54A32D192ED03)))
        order = list(range(count))
        for i in range(count, 1, -1):
            reject = (-i & MASK64) % i
            number = reject - 1
            while number < reject:
                number = next(draws) << 32 | next(draws)
            k = number % i
            order[i - 1], order[k] = order[k], order[i - 1]
        yield from order
        epoch += 1


def read(path):
    return [json.loads(line) for line in open(path, encoding="utf-8") if line.strip()]


def encoded(tokenizer, rows, length):
    return tokenizer([row["text"] for row in rows], truncation=True, max_length=length, padding=True,
                     return_tensors="pt")


def measure(model, tokenizer, rows, labels, length):
    right = loss = 0.0
    model.eval()
    with torch.no_grad():
        for begin in range(0, len(rows), 64):
            batch = rows[begin:begin + 64]
            classes = torch.tensor([labels[row["label"]] for row in batch])
            scores = model(**encoded(tokenizer, batch, length)).logits
            right += (scores.argmax(1) == classes).sum().item()
            loss += torch.nn.functional.cross_entropy(scores, classes, reduction="sum").item()
    model.train()
    return {"accuracy": right / len(rows), "loss": loss / len(rows)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "data", "eval-data"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    chosen = parser.parse_args()
    torch.manual_seed(chosen.seed)
    torch.set_num_threads(1)
    rows, held_out = read(chosen.data), read(chosen.eval_data)
    labels = {name: i for i, name in enumerate(sorted({row["label"] for row in rows}))}
    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    base = AutoModelForSequenceClassification.from_pretrained(
        chosen.model, num_labels=len(labels), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = get_peft_model(base, LoraConfig(r=chosen.rank, lora_alpha=chosen.rank, lora_dropout=0.0,
                                            target_modules=r".*encoder\.layer\..*\.(query|key|value|dense)",
                                            modules_to_save=["pooler", "classifier"]))
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=chosen.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / chosen.steps)
    order = epochs(len(rows), chosen.seed)
    begin = time.time()
    model.train()
    for _ in range(chosen.steps):
        batch = [rows[next(order)] for _ in range(chosen.batch_size)]
        classes = torch.tensor([labels[row["label"]] for row in batch])
        loss = torch.nn.functional.cross_entropy(model(**encoded(tokenizer, batch, chosen.length)).logits, classes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
    seconds = time.time() - begin
    print(json.dumps({"parameters": sum(p.numel() for p in learning), "seconds": seconds,
                      "scores": measure(model, tokenizer, held_out, labels, chosen.length)}))


if __name__ == "__main__":
    main()
