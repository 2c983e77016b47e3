#!/usr/bin/env python3
"""The model folder that the small transformer's training starts from.

    init_folder.py STARTER OUT

Stable Diffusion 3's architecture around the autoencoder and the text encoder of the starter model
(both stay as they are), and a transformer with random weights. Its blocks begin as the identity:
what modulates and gates them, and the last layer, are zero (adaLN-Zero, Peebles and Xie 2023).
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

WIDTH, HEADS, LAYERS = 192, 6, 6
LATENTS, SIDE, PATCH = 4, 16, 2
TEXT_WIDTH = 160  # of the starter's text encoder
TIME_WIDTH = 256  # sinusoids of the time, fixed by the architecture
T5_TOKENS = 1  # of zeros, where the published models have T5
SEED = 1

TRANSFORMER = {
    "_class_name": "SD3Transformer2DModel", "sample_size": SIDE, "patch_size": PATCH,
    "in_channels": LATENTS, "out_channels": LATENTS, "num_layers": LAYERS,
    "num_attention_heads": HEADS, "attention_head_dim": WIDTH // HEADS,
    "joint_attention_dim": 2 * TEXT_WIDTH, "caption_projection_dim": WIDTH,
    "pooled_projection_dim": 2 * TEXT_WIDTH, "pos_embed_max_size": SIDE // PATCH,
    "dual_attention_layers": [], "qk_norm": "rms_norm", "max_sequence_length": T5_TOKENS}
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000,
             "shift": 1.0}
INDEX = {
    "_class_name": "StableDiffusion3Pipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "transformer": ["diffusers", "SD3Transformer2DModel"], "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_3": [None, None], "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"], "tokenizer_3": [None, None]}


class Weights(dict):
    """Tensors by name, drawn in the order in which they are asked for."""

    def __init__(self):
        super().__init__()
        self.random = np.random.default_rng(SEED)

    def linear(self, name, inputs, outputs, zero=False):
        """Uniform as Glorot and Bengio 2010 have it; biases are zero."""
        bound = 0.0 if zero else (6.0 / (inputs + outputs)) ** 0.5
        self[f"{name}.weight"] = self.random.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
        self[f"{name}.bias"] = np.zeros(outputs, np.float32)

    def attention(self, name, context_out):
        for layer in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj"):
            self.linear(f"{name}.{layer}", WIDTH, WIDTH)
        if context_out:
            self.linear(f"{name}.to_add_out", WIDTH, WIDTH)
        for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            self[f"{name}.{norm}.weight"] = np.ones(WIDTH // HEADS, np.float32)

    def feed_forward(self, name):
        self.linear(f"{name}.net.0.proj", WIDTH, 4 * WIDTH)
        self.linear(f"{name}.net.2", 4 * WIDTH, WIDTH)

    def block(self, name, last):
        self.linear(f"{name}.norm1.linear", WIDTH, 6 * WIDTH, zero=True)
        self.linear(f"{name}.norm1_context.linear", WIDTH, (2 if last else 6) * WIDTH, zero=True)
        self.attention(f"{name}.attn", context_out=not last)
        self.feed_forward(f"{name}.ff")
        if not last:
            self.feed_forward(f"{name}.ff_context")


def transformer():
    weights = Weights()
    patch = LATENTS * PATCH * PATCH
    weights.linear("pos_embed.proj", patch, WIDTH)
    weights["pos_embed.proj.weight"] = weights["pos_embed.proj.weight"].reshape(WIDTH, LATENTS, PATCH, PATCH)
    for name, inputs in (("timestep_embedder", TIME_WIDTH), ("text_embedder", 2 * TEXT_WIDTH)):
        weights.linear(f"time_text_embed.{name}.linear_1", inputs, WIDTH)
        weights.linear(f"time_text_embed.{name}.linear_2", WIDTH, WIDTH)
    weights.linear("context_embedder", 2 * TEXT_WIDTH, WIDTH)
    for layer in range(LAYERS):
        weights.block(f"transformer_blocks.{layer}", last=layer + 1 == LAYERS)
    weights.linear("norm_out.linear", WIDTH, 2 * WIDTH, zero=True)
    weights.linear("proj_out", WIDTH, patch, zero=True)
    return dict(weights)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_text_encoders(starter, out):
    """The starter's text encoder twice: the architecture has two, and joins what they say. Its
    projection is the identity."""
    config = json.loads((starter / "text_encoder/config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["CLIPTextModelWithProjection"]
    weights = load_file(starter / "text_encoder/model.safetensors")
    weights["text_projection.weight"] = np.eye(TEXT_WIDTH, dtype=np.float16)
    for number in ("", "_2"):
        write_json(out / f"text_encoder{number}/config.json", config)
        save_file(weights, out / f"text_encoder{number}/model.safetensors", {"format": "pt"})
        shutil.copytree(starter / "tokenizer", out / f"tokenizer{number}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("starter", type=Path, help="assets/starter")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    write_json(options.out / "model_index.json", INDEX)
    write_json(options.out / "scheduler/scheduler_config.json", SCHEDULER)
    write_text_encoders(options.starter, options.out)
    shutil.copytree(options.starter / "vae", options.out / "vae")
    vae = json.loads((options.starter / "vae/config.json").read_text(encoding="utf-8"))
    write_json(options.out / "vae/config.json", vae | {"shift_factor": 0.0})  # diffusers wants to see it
    write_json(options.out / "transformer/config.json", TRANSFORMER)
    save_file(transformer(), options.out / "transformer/diffusion_pytorch_model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    main()
