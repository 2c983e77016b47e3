"""Golden values of ResNet, ViT with a classifier, CLIP's loss and wav2vec 2.0, on formula weights (formula.py), and of the
metrics of texts and rankings.

    python make_perception.py        writes data/perception.json and data/perception.safetensors

Pinned: torch 2.15.0, torchvision 0.29.2, transformers 5.23.0, jiwer 4.0.0.
"""
import json
import pathlib
import re
import string

import jiwer
import numpy
import torch
import torchvision
from safetensors.torch import save_file
from transformers import (CLIPConfig, CLIPModel, ViTConfig, ViTForImageClassification, Wav2Vec2Config, Wav2Vec2ForCTC)

import formula
from make_vision import CLIP, SMALL, published

DATA = pathlib.Path(__file__).parent / "data"
VIT = dict(model_type="vit", intermediate_size=40, **SMALL)
SPEECH = dict(model_type="wav2vec2", vocab_size=12, pad_token_id=0, conv_dim=[8, 12, 12], conv_kernel=[10, 3, 2],
              conv_stride=[5, 2, 2], hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
              num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4)
GROUP = dict(SPEECH, feat_extract_norm="group", conv_bias=False, do_stable_layer_norm=False)
LAYER = dict(SPEECH, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
QUIET = dict(hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0, final_dropout=0.0,
             layerdrop=0.0, apply_spec_augment=False, ctc_loss_reduction="mean", ctc_zero_infinity=True)


def resnet(name):
    model = getattr(torchvision.models, name)(num_classes=5).eval()
    formula.fill(model)
    with torch.no_grad():
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer.copy_(formula.weight(key, tuple(buffer.shape)))
            if key.endswith("running_var"):
                buffer.copy_(formula.weight(key, tuple(buffer.shape)).abs() + 0.5)
    return model


def resnets(out):
    for name in ("resnet18", "resnet50"):
        model = resnet(name)
        logits = model(formula.uniform(name, (2, 3, 64, 64)))
        logits.logsumexp(1).sum().backward()
        out[name + ".logits"] = logits.detach()
        out[name + ".gradient"] = model.layer2[0].downsample[0].weight.grad[:4]


def learning_resnet(out):
    model = resnet("resnet18").train()
    logits = model(formula.uniform("resnet18", (2, 3, 64, 64)))
    logits.logsumexp(1).sum().backward()
    out["learning.logits"] = logits.detach()
    out["learning.gradient"] = model.layer2[0].downsample[0].weight.grad[:4]
    for key in ("bn1", "layer4.1.bn2"):
        for part in ("running_mean", "running_var"):
            out[f"learning.{key}.{part}"] = model.get_buffer(f"{key}.{part}")[:16]


def classifier(out):
    model = ViTForImageClassification(ViTConfig(**VIT, num_labels=3)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            old = name if name.startswith("classifier") else "vit." + published(name.removeprefix("vit."), "vit")
            parameter.copy_(formula.weight(old, tuple(parameter.shape)))
    logits = model(formula.uniform("vit.32", (2, 3, 32, 32))).logits
    logits.logsumexp(1).sum().backward()
    out["vit.classes"] = logits.detach()
    out["vit.gradient"] = model.vit.layers[0].attention.q_proj.weight.grad


def clip_loss(out):
    model = CLIPModel(CLIPConfig(**{k: v for k, v in CLIP.items() if k != "model_type"})).eval()
    formula.fill(model)
    ids = torch.tensor([[58, 5, 17, 3, 59, 59, 59, 59, 59], [58, 9, 2, 59, 59, 59, 59, 59, 59]])
    result = model(input_ids=ids, pixel_values=formula.uniform("clip.pair", (2, 3, 32, 32)), return_loss=True)
    result.loss.backward()
    out["clip.loss"] = result.loss.detach().reshape(1)
    out["clip.scale_gradient"] = model.logit_scale.grad.reshape(1)
    out["clip.text_gradient"] = model.text_model.encoder.layers[0].self_attn.q_proj.weight.grad
    out["clip.vision_gradient"] = model.vision_model.encoder.layers[0].self_attn.v_proj.weight.grad


def speech(out):
    for key, config in (("group", GROUP), ("layer", LAYER)):
        model = Wav2Vec2ForCTC(Wav2Vec2Config(**{k: v for k, v in config.items() if k != "model_type"}, **QUIET)).eval()
        formula.fill(model, lambda name: name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"))
        sound = formula.uniform("sound." + key, (2, 640))
        mask = None
        if key == "layer":
            sound[1, 500:] = 0
            mask = torch.ones(2, 640, dtype=torch.long)
            mask[1, 500:] = 0
        labels = torch.tensor([[3, 4, 4, 7, 2], [5, 1, 6, -100, -100]])
        result = model(sound, attention_mask=mask, labels=labels)
        result.loss.backward()
        out[f"speech.{key}.logits"] = result.logits.detach()
        out[f"speech.{key}.loss"] = result.loss.detach().reshape(1)
        out[f"speech.{key}.gradient"] = model.wav2vec2.encoder.layers[0].attention.q_proj.weight.grad


def squad_words(text):
    """SQuAD's normalize_answer (Rajpurkar et al. 2016)."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def squad_scores(answer, truth):
    """SQuAD 2.0's exact match and F1."""
    a, b = squad_words(answer), squad_words(truth)
    if not a or not b:
        return [float(a == b), float(a == b)]
    common = sum(min(a.count(word), b.count(word)) for word in set(a))
    precision, recall = common / len(a), common / len(b)
    return [float(a == b), 2 * precision * recall / (precision + recall) if common else 0.0]


ANSWERS = [("The Eiffel Tower", "eiffel tower"), ("in the year 1889.", "1889"), ("a an the", "The"), ("", "Paris"), ("", ""),
           ("Paris, Paris and Lyon", "Paris Lyon"), ("U.S.A.", "usa"), ("\u201cThe\u201d Who", "\u201cthe\u201d who"),
           ("\u00c9COLE d\u2019A", "\u00e9cole d\u2019"), ("an\u00a0apple", "apple"), ("\u0391\u03a3", "\u03b1\u03c2"),
           ("theory_of the-a", "theoryof thea"), ("a\u0301 la carte", "\u0301 la carte"), ("two\x1cwords", "two words")]
SAID = [("the cat sat on the mat", "the cat sat on a mat"), ("hello", "hello world"), ("one two  three four", "one three for"),
        ("", "something"), ("gr\u00fc\u00dfe aus k\u00f6ln", "gruesse aus k\u00f6ln"), (" spaces around ", "spaces  around")]


def texts(cases):
    cases["answers"] = [[a, b, *squad_scores(a, b)] for a, b in ANSWERS]
    cases["said"] = [list(pair) for pair in SAID]
    said, truth = [list(column) for column in zip(*SAID)]
    cases["word error rate"] = jiwer.wer(truth, said)
    squeezed = [[re.sub(r"\s+", " ", text).strip() for text in column] for column in (truth, said)]
    cases["character error rate"] = jiwer.cer(*squeezed)


def rankings(cases):
    """Recall@k and NDCG@k as Liang et al. 2018 compute them, with numpy."""
    rows = []
    for number in range(6):
        scores = formula.uniform(f"ranking.{number}", (12,)).numpy()
        wanted = numpy.flatnonzero(formula.uniform(f"wanted.{number}", (12,)).numpy() > (0.7 if number else 0.0))
        ranked = numpy.argsort(-scores)
        for k in (1, 3, 10, 20):
            hits = numpy.isin(ranked[:k], wanted)
            discount = 1.0 / numpy.log2(numpy.arange(2, 2 + k))
            best = min(k, len(wanted))
            if best:
                rows.append([ranked.tolist(), wanted.tolist(), k, float(hits.sum() / best),
                             float((hits * discount[:len(hits)]).sum() / discount[:best].sum())])
    cases["rankings"] = rows


def main():
    out, cases = {}, {}
    texts(cases)
    rankings(cases)
    resnets(out)
    learning_resnet(out)
    classifier(out)
    clip_loss(out)
    speech(out)
    save_file({name: tensor.contiguous() for name, tensor in out.items()}, DATA / "perception.safetensors")
    (DATA / "perception.json").write_text(json.dumps({"vit": VIT, "clip": CLIP, "group": GROUP, "layer": LAYER, **cases}) + "\n")
    print({name: tuple(tensor.shape) for name, tensor in out.items()})


if __name__ == "__main__":
    main()
