"""Golden features of the networks that measure pictures, on formula weights (formula.py), and PIL's
resampling.

    python make_vision.py            writes data/vision.json and data/vision.safetensors

Inception is pytorch-fid's own class, without its download. transformers 5 renames the layers of published checkpoints in memory; weights here are by the
published names. Pinned: torch 2.15.0, torchvision 0.29.2, transformers 5.23.0, pillow 13.0.0, pytorch-fid 0.3.0,
lpips 0.1.4.
"""
import json
import pathlib
import re

import lpips
import numpy
import torch
import torchvision
from PIL import Image
from pytorch_fid import inception
from safetensors.torch import save_file
from transformers import (CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model, SegformerConfig,
                          SegformerForSemanticSegmentation, ViTConfig, ViTModel)

import formula

DATA = pathlib.Path(__file__).parent / "data"
SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
VIT = dict(model_type="vit", intermediate_size=40, **SMALL)
DINOV2 = dict(model_type="dinov2", mlp_ratio=3, **SMALL)
GATED = dict(DINOV2, use_swiglu_ffn=True)
CLIP = dict(model_type="clip", projection_dim=12,
            vision_config=dict(intermediate_size=40, **SMALL),
            text_config=dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
                             vocab_size=60, max_position_embeddings=9, eos_token_id=59, bos_token_id=58))
SEGFORMER = dict(model_type="segformer", num_encoder_blocks=3, depths=[1, 2, 1], sr_ratios=[4, 2, 1],
                 hidden_sizes=[8, 12, 16], patch_sizes=[7, 3, 3], strides=[4, 2, 2], num_attention_heads=[1, 2, 4],
                 mlp_ratios=[2, 3, 2], decoder_hidden_size=12, num_labels=5)
OLD = [("q_proj", "attention.query"), ("k_proj", "attention.key"), ("v_proj", "attention.value"),
       ("o_proj", "output.dense")]


def published_segformer(name):
    name = re.sub(r"stages\.(\d+)\.patch_embeddings", r"encoder.patch_embeddings.\1", name)
    name = re.sub(r"stages\.(\d+)\.blocks\.(\d+)", r"encoder.block.\1.\2", name)
    name = re.sub(r"stages\.(\d+)\.layer_norm", r"encoder.layer_norm.\1", name)
    for new, old in (("q_proj", "self.query"), ("k_proj", "self.key"), ("v_proj", "self.value"), ("o_proj", "output.dense"),
                     ("sequence_reduction.sequence_reduction", "self.sr"), ("sequence_reduction.layer_norm", "self.layer_norm")):
        name = name.replace("attention." + new, "attention." + old)
    for new, old in (("layernorm_before", "layer_norm_1"), ("layernorm_after", "layer_norm_2"), ("mlp.fc", "mlp.dense"),
                     ("linear_projections", "linear_c")):
        name = name.replace(new, old)
    return name


def segformer_outputs(out):
    model = SegformerForSemanticSegmentation(SegformerConfig(**SEGFORMER)).eval()
    formula.fill(model, published_segformer)
    norm = model.decode_head.batch_norm
    norm.running_mean.copy_(formula.weight("decode_head.batch_norm.running_mean", (12,)))
    norm.running_var.copy_(formula.weight("decode_head.batch_norm.running_var", (12,)).abs() + 0.5)
    out["segformer"] = model(formula.uniform("segformer.pixels", (2, 3, 64, 48))).logits


def inception_outputs(out):
    net = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
    net.Mixed_5b, net.Mixed_5c = inception.FIDInceptionA(192, 32), inception.FIDInceptionA(256, 64)
    net.Mixed_5d = inception.FIDInceptionA(288, 64)
    net.Mixed_6b, net.Mixed_6c = inception.FIDInceptionC(768, 128), inception.FIDInceptionC(768, 160)
    net.Mixed_6d, net.Mixed_6e = inception.FIDInceptionC(768, 160), inception.FIDInceptionC(768, 192)
    net.Mixed_7b, net.Mixed_7c = inception.FIDInceptionE_1(1280), inception.FIDInceptionE_2(2048)
    net.eval()
    formula.fill(net)
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(formula.weight(name, tuple(buffer.shape)))
        if name.endswith("running_var"):
            buffer.copy_(formula.weight(name, tuple(buffer.shape)).abs() + 0.5)
    inception.fid_inception_v3 = lambda: net
    wrapped = inception.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    out["inception"] = wrapped(formula.uniform("inception.pixels", (1, 3, 299, 299)))[0].flatten(1)


def lpips_outputs(out):
    for key in ("alex", "vgg"):
        model = lpips.LPIPS(pretrained=False, net=key, pnet_rand=True, verbose=False).eval()
        for name, parameter in model.named_parameters():
            # slice3.7.weight of the backbone is features.7.weight; lins.0 are lin0 again.
            short = re.sub(r"net\.slice\d\.", "features.", name)
            value = formula.weight(short, tuple(parameter.shape))
            parameter.copy_(value.abs() if name.startswith("lin") else value)
        a, b = (formula.uniform(f"lpips.{n}", (2, 3, 64, 64)) for n in "ab")
        out["lpips." + key] = model(a, b).flatten()


def published(name, kind):
    if kind == "clip":
        return name
    name = re.sub(r"^layers\.", "encoder.layer.", name)
    for new, old in OLD:
        name = name.replace("attention." + new, "attention." + old)
    if kind == "vit":
        name = name.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")
    return name


def fill(model, kind):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            old = published(name, kind)
            shape = tuple(parameter.shape)
            half = {"gate_proj": 0, "up_proj": 1}.get(name.split(".")[-2] if "." in name else "")
            if half is not None:  # one matrix in published files
                whole = formula.weight(re.sub("gate_proj|up_proj", "weights_in", old), (2 * shape[0], *shape[1:]))
                parameter.copy_(whole.chunk(2)[half])
            else:
                parameter.copy_(formula.weight(old.replace("down_proj", "weights_out"), shape))
    return model.eval()


def main():
    out = {}
    with torch.no_grad():
        for key, cls, config in (("vit", ViTModel, ViTConfig(**VIT)), ("dinov2", Dinov2Model, Dinov2Config(**DINOV2)),
                                 ("gated", Dinov2Model, Dinov2Config(**GATED))):
            model = fill(cls(config), key)
            for side in (32, 48):
                pixels = formula.uniform(f"{key}.{side}", (2, 3, side, side))
                more = {"interpolate_pos_encoding": True} if key == "vit" else {}
                out[f"{key}.{side}"] = model(pixels, **more).last_hidden_state[:, 0]
        clip = fill(CLIPModel(CLIPConfig(**{k: v for k, v in CLIP.items() if k != "model_type"})), "clip")
        pixels = formula.uniform("clip.32", (2, 3, 32, 32))
        ids = torch.tensor([[58, 5, 17, 3, 59, 59, 59, 59, 59]])
        vision = clip.vision_model(pixels).pooler_output
        out["clip.32"] = clip.visual_projection(vision)
        segformer_outputs(out)
        inception_outputs(out)
        lpips_outputs(out)
        out["clip.text"] = clip.text_projection(clip.text_model(ids).pooler_output)
    picture = Image.fromarray((formula.uniform("picture", (37, 53, 3)).numpy() * 127.5 + 127.5).astype(numpy.uint8))
    for name, kernel in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        for size in ((20, 16), (53, 80), (101, 37)):
            out[f"pil.{name}.{size[0]}x{size[1]}"] = torch.from_numpy(numpy.array(picture.resize(size, kernel)))
    channels = [Image.fromarray(numpy.array(picture)[..., c].astype(numpy.float32)) for c in range(3)]
    out["pil.float.20x16"] = torch.stack(
        [torch.from_numpy(numpy.array(c.resize((20, 16), Image.Resampling.BICUBIC))) for c in channels], -1)
    save_file({k: v.contiguous() for k, v in out.items()}, DATA / "vision.safetensors")
    configs = {"vit": VIT, "dinov2": DINOV2, "gated": GATED, "clip": CLIP, "segformer": SEGFORMER}
    (DATA / "vision.json").write_text(json.dumps(configs, indent=1) + "\n")


if __name__ == "__main__":
    main()
