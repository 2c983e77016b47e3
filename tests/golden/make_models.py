"""Golden outputs of the model classes on formula weights (formula.py).

    python make_models.py            writes data/models.json and data/models.safetensors

Pinned: torch 2.15.0, diffusers 0.42.1, transformers 5.23.0.
"""
import json
import pathlib

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import formula

DATA = pathlib.Path(__file__).parent / "data"
TEXT = {
    "clip_l": dict(vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                   num_attention_heads=4, max_position_embeddings=16, hidden_act="quick_gelu",
                   eos_token_id=2, bos_token_id=0, projection_dim=32,
                   architectures=["CLIPTextModel"]),
    "clip_g": dict(vocab_size=120, hidden_size=48, intermediate_size=100, num_hidden_layers=2,
                   num_attention_heads=3, max_position_embeddings=12, hidden_act="gelu",
                   eos_token_id=98, bos_token_id=97, projection_dim=20,
                   architectures=["CLIPTextModelWithProjection"]),
}
VAE = {
    "vae_sd": dict(block_out_channels=[16, 32, 32, 48], layers_per_block=2, norm_num_groups=8,
                   sample_size=32, latent_channels=4, scaling_factor=0.18215,
                   down_block_types=["DownEncoderBlock2D"] * 4,
                   up_block_types=["UpDecoderBlock2D"] * 4),
    "vae_small": dict(block_out_channels=[16, 24], layers_per_block=1, norm_num_groups=4,
                      sample_size=16, latent_channels=8, use_quant_conv=False,
                      use_post_quant_conv=False, mid_block_add_attention=False,
                      down_block_types=["DownEncoderBlock2D"] * 2,
                      up_block_types=["UpDecoderBlock2D"] * 2),
}
UNET = {
    "unet_sd1": dict(
        sample_size=16, block_out_channels=[32, 64], layers_per_block=2, norm_num_groups=8,
        attention_head_dim=4, cross_attention_dim=24,
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"]),
    "unet_sd2": dict(
        sample_size=16, block_out_channels=[32, 64, 96], layers_per_block=1, norm_num_groups=16,
        attention_head_dim=[2, 4, 8], cross_attention_dim=40, use_linear_projection=True,
        upcast_attention=True, norm_eps=1e-6,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]),
    "unet_sdxl": dict(
        sample_size=16, block_out_channels=[32, 64, 64], layers_per_block=2, norm_num_groups=8,
        attention_head_dim=[2, 4, 8], cross_attention_dim=28, use_linear_projection=True,
        transformer_layers_per_block=[1, 2, 3], addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=68,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]),
    "unet_inpaint": dict(
        sample_size=16, in_channels=9, out_channels=4, block_out_channels=[16, 32],
        layers_per_block=[1, 2], norm_num_groups=4, attention_head_dim=2,
        cross_attention_dim=[20, 20], only_cross_attention=True, center_input_sample=True,
        flip_sin_to_cos=False, freq_shift=1, downsample_padding=0,
        down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]),
}
SIZES = {"unet_sd1": (16, 16), "unet_sd2": (13, 11), "unet_sdxl": (16, 12), "unet_inpaint": (8, 8)}


def text_name(name):
    return name if name.startswith(("text_model.", "text_projection.")) else "text_model." + name


def text_ids(config):
    """Two rows of ids that end with the end-of-text token and padding."""
    length = config["max_position_embeddings"]
    eos = config["vocab_size"] - 1 if config["eos_token_id"] == 2 else config["eos_token_id"]
    raw = (formula.uniform("ids", (2, length)).abs() * (config["vocab_size"] - 30)).long()
    ids = raw.clamp(3, eos - 1)
    ids[0, 5:] = eos
    ids[1, 9:] = eos
    return ids


def text_outputs(out):
    for key, config in TEXT.items():
        cls = CLIPTextModelWithProjection if "Projection" in config["architectures"][0] else CLIPTextModel
        model = cls(CLIPTextConfig(**config)).eval()
        formula.fill(model, text_name)
        ids = text_ids(config)
        result = model(ids, output_hidden_states=True)
        out[key + ".ids"] = ids
        out[key + ".last"] = result.last_hidden_state
        out[key + ".penultimate"] = result.hidden_states[-2]
        out[key + ".pooled"] = result.text_embeds if cls is CLIPTextModelWithProjection else result.pooler_output


def vae_outputs(out):
    for key, config in VAE.items():
        model = AutoencoderKL(**config).eval()
        formula.fill(model)
        scale = 2 ** (len(config["block_out_channels"]) - 1)
        images = formula.uniform(key + ".images", (2, 3, 4 * scale, 3 * scale))
        latents = formula.uniform(key + ".latents", (2, config["latent_channels"], 4, 3))
        posterior = model.encode(images).latent_dist
        out[key + ".mean"], out[key + ".logvar"] = posterior.mean, posterior.logvar
        out[key + ".decoded"] = model.decode(latents).sample
        model.enable_tiling()
        side = model.tile_latent_min_size
        big = formula.uniform(key + ".big", (1, config["latent_channels"], 2 * side, 2 * side + 1))
        out[key + ".tiled_decoded"] = model.decode(big).sample
        big_image = formula.uniform(key + ".big_image", (1, 3, 2 * config["sample_size"], config["sample_size"] + 8))
        out[key + ".tiled_mean"] = model.encode(big_image).latent_dist.mean


def unet_outputs(out):
    for key, config in UNET.items():
        model = UNet2DConditionModel(**config).eval()
        formula.fill(model)
        height, width = SIZES[key]
        context = config["cross_attention_dim"]
        context = context[0] if isinstance(context, list) else context
        latents = formula.uniform(key + ".latents", (2, config.get("in_channels", 4), height, width))
        text = formula.uniform(key + ".text", (2, 7, context))
        timesteps = torch.tensor([3.0, 801.5])
        added = None
        if config.get("addition_embed_type"):
            added = {"text_embeds": formula.uniform(key + ".pooled", (2, 20)),
                     "time_ids": torch.tensor([[64.0, 48.0, 0.0, 8.0, 64.0, 48.0]] * 2)}
        out[key + ".out"] = model(latents, timesteps, text, added_cond_kwargs=added).sample


def main():
    torch.manual_seed(0)
    out = {}
    with torch.no_grad():
        text_outputs(out)
        vae_outputs(out)
        unet_outputs(out)
    DATA.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in out.items()}, DATA / "models.safetensors")
    (DATA / "models.json").write_text(json.dumps({**TEXT, **VAE, **UNET}, indent=1) + "\n")


if __name__ == "__main__":
    main()
