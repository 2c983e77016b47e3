"""Golden values of the language networks and their tokenizers, on formula weights (formula.py).

    python make_language.py          writes data/language.json, data/language.safetensors and data/tokenizers/*

transformers 5 keeps the names of published checkpoints for these networks. Pinned: torch 2.15.0, transformers 5.23.0,
tokenizers 0.23.3.
"""
import json
import pathlib

import torch
from safetensors.torch import save_file
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer
from transformers import (BertConfig, BertForQuestionAnswering, BertForSequenceClassification, BertModel, GPT2Config,
                          GPT2LMHeadModel, RobertaConfig, RobertaForSequenceClassification)

import formula

DATA = pathlib.Path(__file__).parent / "data"
SMALL = dict(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
             max_position_embeddings=20, num_labels=3)
BERT = dict(model_type="bert", type_vocab_size=2, pad_token_id=0, **SMALL)
ROBERTA = dict(model_type="roberta", type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5, **SMALL)
GPT2 = dict(model_type="gpt2", vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=20)
TEXTS = ["Cats are small animals, and they're kept as pets.", "The small cat's name isn't known!",
         "Crème brûlée costs 12.50 euros in the café.", "  Two  spaces\tand\na line break  ", "日本語 text and ÀÉ",
         "unaffable antidisestablishmentarianism", "naïve", "we'll see; they've seen, I'm told, he'd say it's so 're"]


def ids(name, shape, low, high):
    return ((formula.uniform(name, shape) + 1.0) / 2.0 * (high - low)).floor().long() + low


def encoder_outputs(out):
    for key, cls, config in (("bert", BertForSequenceClassification, BertConfig(**BERT)),
                             ("roberta", RobertaForSequenceClassification, RobertaConfig(**ROBERTA))):
        model = cls(config).eval()
        formula.fill(model)
        text = ids(key + ".ids", (2, 9), 2, 50)
        mask = torch.ones(2, 9, dtype=torch.long)
        text[1, 6:] = config.pad_token_id
        mask[1, 6:] = 0
        types = torch.tensor([[0] * 5 + [1] * 4] * 2) if key == "bert" else torch.zeros(2, 9, dtype=torch.long)
        logits = model(text, attention_mask=mask, token_type_ids=types).logits
        torch.nn.functional.cross_entropy(logits, torch.tensor([2, 0])).backward()
        base = getattr(model, key)
        out[key + ".logits"] = logits.detach()
        out[key + ".query_gradient"] = base.encoder.layer[0].attention.self.query.weight.grad
        out[key + ".word_gradient"] = base.embeddings.word_embeddings.weight.grad
    model = BertForQuestionAnswering(BertConfig(**dict(BERT, num_labels=2))).eval()
    formula.fill(model)
    answer = model(ids("bert.ids", (2, 9), 2, 50))
    out["span.start"], out["span.end"] = answer.start_logits.detach(), answer.end_logits.detach()


def sentence_outputs(out):
    """Pooled and normalised, and both losses, by sentence-transformers' formulas."""
    torch.manual_seed(0)
    wrapped = torch.nn.Module()
    wrapped.bert = BertModel(BertConfig(**BERT), add_pooling_layer=False).eval()
    formula.fill(wrapped)  # under the names of a class with a head

    def pooled(ids, mask, how):
        tokens, seen = wrapped.bert(ids, attention_mask=mask).last_hidden_state, mask.unsqueeze(2).float()
        rows = {"mean": (tokens * seen).sum(1) / seen.sum(1), "first": tokens[:, 0],
                "largest": tokens.masked_fill(seen == 0, -1e9).max(1).values}[how]
        return torch.nn.functional.normalize(rows)

    texts = [ids("sentence.first", (3, 9), 2, 50), ids("sentence.second", (3, 9), 2, 50)]
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = 0
    for how in ("mean", "first", "largest"):
        out["sentence." + how] = pooled(texts[0], mask, how).detach()
    first, second = pooled(texts[0], mask, "mean"), pooled(texts[1], mask, "mean")
    ranking = torch.nn.functional.cross_entropy(first @ second.T * 20.0, torch.arange(3))
    ranking.backward()
    out["sentence.ranking_loss"] = ranking.detach().reshape(1)
    out["sentence.query_gradient"] = wrapped.bert.encoder.layer[0].attention.self.query.weight.grad


def gpt2_outputs(out):
    model = GPT2LMHeadModel(GPT2Config(**GPT2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).eval()
    formula.fill(model)
    text = ids("gpt2.ids", (2, 11), 0, 50)
    result = model(text, labels=text)
    result.loss.backward()
    out["gpt2.logits"], out["gpt2.loss"] = result.logits.detach(), result.loss.detach().reshape(1)
    out["gpt2.attention_gradient"] = model.transformer.h[0].attn.c_attn.weight.grad
    out["gpt2.word_gradient"] = model.transformer.wte.weight.grad
    written = model.generate(text[:1, :4], max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=None)
    out["gpt2.written"] = written[0, 4:]


def tokens(tokenizer, texts, pairs):
    rows = [{"text": text, "ids": tokenizer.encode(text).ids, "parts": tokenizer.encode(text).offsets}
            for text in texts]
    return rows + [{"text": a, "second": b, "ids": tokenizer.encode(a, b).ids,
                    "types": tokenizer.encode(a, b).type_ids} for a, b in pairs]


def byte_parts(text, rows):
    """Offsets in characters as offsets in bytes."""
    return [[len(text[:a].encode()), len(text[:b].encode())] for a, b in rows]


def tokenizer_outputs():
    folder = DATA / "tokenizers"
    for name in ("wordpiece", "byte_bpe"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    piece = BertWordPieceTokenizer(lowercase=True)
    piece.train_from_iterator(TEXTS * 3, vocab_size=160, min_frequency=1)
    piece.save_model(str(folder / "wordpiece"))
    piece = BertWordPieceTokenizer(str(folder / "wordpiece" / "vocab.txt"), lowercase=True)
    byte = ByteLevelBPETokenizer()
    byte.train_from_iterator(TEXTS * 3, vocab_size=330, min_frequency=1,
                             special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    byte.save_model(str(folder / "byte_bpe"))
    byte = ByteLevelBPETokenizer(str(folder / "byte_bpe" / "vocab.json"), str(folder / "byte_bpe" / "merges.txt"))
    more = TEXTS + ["", "x" * 120, "a cat 🐈 and 3½ cats"]
    rows = {"wordpiece": tokens(piece, more, [(TEXTS[0], TEXTS[1])]), "byte_bpe": tokens(byte, more, [])}
    for row in rows["wordpiece"]:
        if "parts" in row:
            row["parts"] = byte_parts(row["text"], row["parts"])
    for row in rows["byte_bpe"]:
        row.pop("parts")  # theirs are in characters: no offsets inside one
    return rows


def main():
    out = {}
    encoder_outputs(out)
    sentence_outputs(out)
    gpt2_outputs(out)
    save_file({name: tensor.contiguous() for name, tensor in out.items()}, DATA / "language.safetensors")
    (DATA / "language.json").write_text(json.dumps(
        {"bert": BERT, "roberta": ROBERTA, "gpt2": GPT2, "tokens": tokenizer_outputs()}) + "\n")
    print({name: tuple(tensor.shape) for name, tensor in out.items()})


if __name__ == "__main__":
    main()
