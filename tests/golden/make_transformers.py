"""Golden outputs and gradients of the networks of Stable Diffusion 3 and FLUX on formula weights (formula.py).

    python make_transformers.py      writes data/transformers.json and data/transformers.safetensors

The loss whose gradients are kept is the sum of output * cotangent, a tensor by formula. Pinned: torch 2.15.0,
diffusers 0.42.1, transformers 5.23.0.
"""
import json
import pathlib
import zlib

import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel, SD3Transformer2DModel
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel

import formula

DATA = pathlib.Path(__file__).parent / "data"
SD3 = {
    "sd3": dict(sample_size=8, patch_size=2, in_channels=16, num_layers=3, attention_head_dim=8,
                num_attention_heads=3, joint_attention_dim=20, caption_projection_dim=24,
                pooled_projection_dim=12, out_channels=16, pos_embed_max_size=6),
    "sd35": dict(sample_size=12, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=12,
                 num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=24,
                 pooled_projection_dim=10, out_channels=4, pos_embed_max_size=9,
                 dual_attention_layers=[0], qk_norm="rms_norm"),
}
SD3_SIZES = {"sd3": (8, 8), "sd35": (10, 14)}
SD3_GRADIENTS = ["transformer_blocks.0.attn.to_q.weight", "transformer_blocks.1.attn.add_v_proj.weight",
                 "transformer_blocks.0.norm1.linear.bias", "transformer_blocks.0.ff_context.net.2.bias",
                 "time_text_embed.text_embedder.linear_1.bias", "pos_embed.proj.bias"]
SD35_GRADIENTS = ["transformer_blocks.0.attn2.to_k.weight", "transformer_blocks.1.attn.norm_added_q.weight",
                  "transformer_blocks.0.attn.norm_k.weight", "transformer_blocks.0.norm1.linear.bias"]
FLUX = {
    "flux_dev": dict(in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
                     num_attention_heads=2, joint_attention_dim=20, pooled_projection_dim=12,
                     guidance_embeds=True, axes_dims_rope=[4, 6, 6]),
    "flux_schnell": dict(in_channels=32, out_channels=16, num_layers=1, num_single_layers=3, attention_head_dim=8,
                         num_attention_heads=3, joint_attention_dim=12, pooled_projection_dim=8,
                         guidance_embeds=False, axes_dims_rope=[2, 4, 2]),
}
FLUX_SIZES = {"flux_dev": (6, 4), "flux_schnell": (4, 10)}
FLUX_GRADIENTS = ["transformer_blocks.0.attn.add_k_proj.weight", "transformer_blocks.0.attn.norm_q.weight",
                  "single_transformer_blocks.1.attn.to_k.weight", "single_transformer_blocks.0.norm.linear.bias",
                  "single_transformer_blocks.0.proj_out.bias", "x_embedder.bias"]
T5 = {
    "t5": dict(vocab_size=60, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu"),
    "t5_far": dict(vocab_size=40, d_model=24, d_kv=8, d_ff=20, num_layers=3, num_heads=2,
                   feed_forward_proj="gated-gelu", relative_attention_num_buckets=16,
                   relative_attention_max_distance=40, layer_norm_epsilon=1e-5),
}
T5_LENGTHS = {"t5": 77, "t5_far": 130}
T5_GRADIENTS = ["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                "encoder.block.1.layer.0.SelfAttention.k.weight", "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
                "encoder.block.1.layer.1.layer_norm.weight"]
VAE = {
    "vae_sd3": dict(block_out_channels=[8, 16, 16], layers_per_block=1, norm_num_groups=4, sample_size=32,
                    latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False,
                    use_post_quant_conv=False),
    "vae_flux": dict(block_out_channels=[8, 12, 16, 16], layers_per_block=2, norm_num_groups=4, sample_size=64,
                     latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False,
                     use_post_quant_conv=False, force_upcast=True),
}
VAE_GRADIENTS = ["decoder.mid_block.attentions.0.to_q.bias", "decoder.conv_in.bias"]


def leaf(name, shape):
    return formula.uniform(name, shape).requires_grad_()


NAMES = {}  # how many parameters each network has, and a checksum of their sorted names


def keep_gradients(out, key, result, leaves, model, weights):
    (result * formula.uniform(key + ".cotangent", tuple(result.shape))).sum().backward()
    out[key + ".out"] = result.detach()
    for name, tensor in leaves.items():
        out[f"{key}.gradient.{name}"] = tensor.grad
    parameters = dict(model.named_parameters())
    NAMES[key] = [len(parameters), zlib.crc32("\n".join(sorted(parameters)).encode())]
    for name in weights:
        out[f"{key}.gradient.{name}"] = parameters[name].grad


def sd3_outputs(out):
    for key, config in SD3.items():
        model = SD3Transformer2DModel(**config).eval()
        formula.fill(model)
        leaves = {"latents": leaf(key + ".latents", (2, config["in_channels"], *SD3_SIZES[key])),
                  "text": leaf(key + ".text", (2, 5, config["joint_attention_dim"])),
                  "pooled": leaf(key + ".pooled", (2, config["pooled_projection_dim"]))}
        result = model(leaves["latents"], leaves["text"], leaves["pooled"], torch.tensor([3.0, 801.5])).sample
        keep_gradients(out, key, result, leaves, model, SD35_GRADIENTS if key == "sd35" else SD3_GRADIENTS)
        out[key + ".table"] = model.pos_embed.pos_embed[:, ::7]


def flux_outputs(out):
    for key, config in FLUX.items():
        model = FluxTransformer2DModel(**config).eval()
        formula.fill(model)
        height, width = FLUX_SIZES[key]
        latents = formula.uniform(key + ".latents", (2, config["in_channels"] // 4, height, width))
        packed = FluxPipeline._pack_latents(latents, 2, latents.shape[1], height, width)
        ids = FluxPipeline._prepare_latent_image_ids(2, height // 2, width // 2, "cpu", torch.float32)
        leaves = {"packed": packed.clone().requires_grad_(),
                  "text": leaf(key + ".text", (2, 5, config["joint_attention_dim"])),
                  "pooled": leaf(key + ".pooled", (2, config["pooled_projection_dim"]))}
        guidance = torch.tensor([3.5, 1.0]) if config["guidance_embeds"] else None
        result = model(leaves["packed"], leaves["text"], leaves["pooled"], torch.tensor([0.003, 0.8015]), ids,
                       torch.zeros(5, 3), guidance).sample
        keep_gradients(out, key, result, leaves, model, FLUX_GRADIENTS)
        out[key + ".packed"] = packed
        out[key + ".ids"] = ids


def t5_outputs(out):
    for key, config in T5.items():
        model = T5EncoderModel(T5Config(**config)).eval()
        formula.fill(model)
        length = T5_LENGTHS[key]
        ids = ((formula.uniform(key + ".ids", (2, length)) + 1.0) / 2.0 * config["vocab_size"]).floor().long()
        mask = torch.ones(2, length, dtype=torch.long)
        if key == "t5_far":
            mask[1, 90:] = 0
        result = model(ids, attention_mask=mask).last_hidden_state
        if key == "t5_far":
            result = result[:, ::9]
        keep_gradients(out, key, result, {}, model, T5_GRADIENTS)


def vae_outputs(out):
    for key, config in VAE.items():
        blocks = len(config["block_out_channels"])
        config.update(down_block_types=["DownEncoderBlock2D"] * blocks, up_block_types=["UpDecoderBlock2D"] * blocks)
        model = AutoencoderKL(**config).eval()
        formula.fill(model)
        scale = 2 ** (blocks - 1)
        images = leaf(key + ".images", (1, 3, 3 * scale, 2 * scale))
        posterior = model.encode(images).latent_dist
        (posterior.mean * formula.uniform(key + ".mean_cotangent", tuple(posterior.mean.shape))).sum().backward()
        out[key + ".mean"], out[key + ".logvar"] = posterior.mean.detach(), posterior.logvar.detach()
        out[key + ".gradient.images"] = images.grad
        out[key + ".scaled"] = (posterior.mean.detach() - model.config.shift_factor) * model.config.scaling_factor
        latents = leaf(key + ".latents", (1, 16, 3, 2))
        result = model.decode(latents).sample
        keep_gradients(out, key, result, {"latents": latents}, model, VAE_GRADIENTS)


def main():
    torch.manual_seed(0)
    out = {}
    sd3_outputs(out)
    flux_outputs(out)
    t5_outputs(out)
    vae_outputs(out)
    save_file({k: v.contiguous() for k, v in out.items()}, DATA / "transformers.safetensors")
    (DATA / "transformers.json").write_text(json.dumps({**SD3, **FLUX, **T5, **VAE, "names": NAMES}, indent=1) + "\n")


if __name__ == "__main__":
    main()
