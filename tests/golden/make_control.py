"""Golden outputs of control networks on formula weights (formula.py).

    python make_control.py            writes data/control.json and data/control.safetensors

ControlNetModel beside a U-Net, in the kinds of Stable Diffusion 1 and XL: residuals, the U-Net's
output with them, and gradients of its mean square; and the control encoder of OFT and of PEFT's
boft_controlnet example, whose output is added to conv_in's.
Pinned: torch 2.15.0, diffusers 0.42.1.
"""
import json
import pathlib

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from safetensors.torch import save_file

import formula

DATA = pathlib.Path(__file__).parent / "data"
SD = dict(block_out_channels=[16, 32], layers_per_block=1, norm_num_groups=4, attention_head_dim=2,
          cross_attention_dim=12, down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"])
XL = dict(block_out_channels=[16, 32], layers_per_block=1, norm_num_groups=4, attention_head_dim=[2, 4],
          cross_attention_dim=12, use_linear_projection=True, transformer_layers_per_block=[1, 2],
          addition_embed_type="text_time", addition_time_embed_dim=8,
          projection_class_embeddings_input_dim=68,
          down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"])
CONTROL = {"conditioning_embedding_out_channels": [4, 8, 12, 16]}
NETS = {
    "control_sd": (dict(SD, **CONTROL), dict(SD, up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"])),
    "control_bgr": (dict(SD, **CONTROL, controlnet_conditioning_channel_order="bgr", global_pool_conditions=True),
                    dict(SD, up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"])),
    "control_xl": (dict(XL, **CONTROL), dict(XL, up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"])),
}
GRADIENTS = ["controlnet_down_blocks.0.weight", "controlnet_mid_block.bias", "conv_in.bias",
             "controlnet_cond_embedding.conv_in.weight", "mid_block.resnets.1.conv2.bias"]
STRENGTH = 0.75


def inputs(key):
    added = None
    if key.endswith("xl"):
        added = {"text_embeds": formula.uniform(key + ".pooled", (2, 20)),
                 "time_ids": torch.tensor([[64.0, 48.0, 0.0, 8.0, 64.0, 48.0]] * 2)}
    return dict(sample=formula.uniform(key + ".latents", (2, 4, 8, 6)), timestep=torch.tensor([3.0, 801.5]),
                encoder_hidden_states=formula.uniform(key + ".text", (2, 7, 12)), added_cond_kwargs=added)


def net_outputs(key, control_config, unet_config, out):
    control = ControlNetModel(**control_config).eval()
    unet = UNet2DConditionModel(**unet_config).eval()
    formula.fill(control, lambda name: "control." + name)
    formula.fill(unet)
    picture = formula.uniform(key + ".picture", (2, 3, 64, 48)) * 0.5 + 0.5
    given = inputs(key)
    down, mid = control(**given, controlnet_cond=picture, conditioning_scale=STRENGTH, return_dict=False)
    said = unet(**given, down_block_additional_residuals=list(down), mid_block_additional_residual=mid).sample
    said.square().mean().backward()
    for i, residual in enumerate(down):
        out[f"{key}.skip{i}"] = residual.detach()
    out[key + ".middle"], out[key + ".out"] = mid.detach(), said.detach()
    parameters = dict(control.named_parameters())
    for name in GRADIENTS:
        out[f"{key}.gradient.{name}"] = parameters[name].grad


def encoder_outputs(out):
    unet = UNet2DConditionModel(**NETS["control_sd"][1]).eval()
    formula.fill(unet)
    encoder = ControlNetConditioningEmbedding(16, 3, (4, 8, 12, 16)).eval()
    formula.fill(encoder, lambda name: "encoder." + name)
    picture = formula.uniform("encoder.picture", (2, 3, 64, 48)) * 0.5 + 0.5
    hint = encoder(picture)
    unet.conv_in.register_forward_hook(lambda module, args, result: result + hint)
    out["encoder.hint"] = hint.detach()
    out["encoder.out"] = unet(**inputs("encoder")).sample.detach()


def main():
    out = {}
    for key, (control_config, unet_config) in NETS.items():
        net_outputs(key, control_config, unet_config, out)
    encoder_outputs(out)
    save_file({k: v.contiguous() for k, v in out.items()}, DATA / "control.safetensors")
    configs = {key: {"controlnet": c, "unet": u} for key, (c, u) in NETS.items()}
    (DATA / "control.json").write_text(json.dumps(configs, indent=1) + "\n")


if __name__ == "__main__":
    main()
