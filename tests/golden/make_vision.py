"""Golden features of the networks that measure pictures, on formula weights (formula.py), and PIL's
resampling.

    python make_vision.py            writes data/vision.json and data/vision.safetensors

transformers 5 renames the layers of published checkpoints in memory; weights here are by the
published names. Pinned: torch 2.15.0, transformers 5.23.0, pillow 13.0.0.
"""
import json
import pathlib
import re

import numpy
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

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
OLD = [("q_proj", "attention.query"), ("k_proj", "attention.key"), ("v_proj", "attention.value"),
       ("o_proj", "output.dense")]


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
        out["clip.text"] = clip.text_projection(clip.text_model(ids).pooler_output)
    picture = Image.fromarray((formula.uniform("picture", (37, 53, 3)).numpy() * 127.5 + 127.5).astype(numpy.uint8))
    for name, kernel in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        for size in ((20, 16), (53, 80), (101, 37)):
            out[f"pil.{name}.{size[0]}x{size[1]}"] = torch.from_numpy(numpy.array(picture.resize(size, kernel)))
    save_file({k: v.contiguous() for k, v in out.items()}, DATA / "vision.safetensors")
    configs = {"vit": VIT, "dinov2": DINOV2, "gated": GATED, "clip": CLIP}
    (DATA / "vision.json").write_text(json.dumps(configs, indent=1) + "\n")


if __name__ == "__main__":
    main()
