"""Names of the original latent-diffusion code for the tensors of diffusers' models."""
import torch


def unet_names(config):
    """{diffusers prefix: LDM prefix} for a UNet2DConditionModel configuration, longest first."""
    resnet = {"norm1.": "in_layers.0.", "conv1.": "in_layers.2.", "time_emb_proj.": "emb_layers.1.",
              "norm2.": "out_layers.0.", "conv2.": "out_layers.3.", "conv_shortcut.": "skip_connection."}
    names = {"time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.",
             "add_embedding.linear_1.": "label_emb.0.0.", "add_embedding.linear_2.": "label_emb.0.2.",
             "conv_in.": "input_blocks.0.0.", "conv_norm_out.": "out.0.", "conv_out.": "out.2.",
             "mid_block.attentions.0.": "middle_block.1."}
    for i, place in enumerate(("middle_block.0.", "middle_block.2.")):
        names |= {f"mid_block.resnets.{i}.{a}": place + b for a, b in resnet.items()}
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    for level in range(levels):
        for j in range(layers):
            block = f"input_blocks.{1 + level * (layers + 1) + j}."
            names |= {f"down_blocks.{level}.resnets.{j}.{a}": block + "0." + b for a, b in resnet.items()}
            names[f"down_blocks.{level}.attentions.{j}."] = block + "1."
        names[f"down_blocks.{level}.downsamplers.0.conv."] = f"input_blocks.{(level + 1) * (layers + 1)}.0.op."
        for j in range(layers + 1):
            block = f"output_blocks.{level * (layers + 1) + j}."
            names |= {f"up_blocks.{level}.resnets.{j}.{a}": block + "0." + b for a, b in resnet.items()}
            names[f"up_blocks.{level}.attentions.{j}."] = block + "1."
        part = 2 if config["up_block_types"][level].startswith("CrossAttn") else 1
        names[f"up_blocks.{level}.upsamplers.0."] = f"output_blocks.{level * (layers + 1) + layers}.{part}."
    return names


def vae_names(config):
    names = {"quant_conv.": "quant_conv.", "post_quant_conv.": "post_quant_conv."}
    levels = len(config["block_out_channels"])
    for half, list_name, ldm_list, sampler, ldm_sampler in (
            ("encoder.", "down_blocks", "down", "downsamplers.0.", "downsample."),
            ("decoder.", "up_blocks", "up", "upsamplers.0.", "upsample.")):
        names |= {half + "conv_in.": half + "conv_in.", half + "conv_out.": half + "conv_out.",
                  half + "conv_norm_out.": half + "norm_out."}
        for a, b in (("group_norm.", "norm."), ("to_q.", "q."), ("to_k.", "k."), ("to_v.", "v."), ("to_out.0.", "proj_out.")):
            names[f"{half}mid_block.attentions.0.{a}"] = f"{half}mid.attn_1.{b}"
        blocks = [(f"{half}mid_block.resnets.{i}.", f"{half}mid.block_{i + 1}.") for i in range(2)]
        for level in range(levels):
            ldm_level = level if half == "encoder." else levels - 1 - level
            place = f"{half}{ldm_list}.{ldm_level}."
            blocks += [(f"{half}{list_name}.{level}.resnets.{j}.", f"{place}block.{j}.")
                       for j in range(config["layers_per_block"] + 1)]
            names[f"{half}{list_name}.{level}.{sampler}"] = place + ldm_sampler
        for a, b in blocks:
            names[a + "conv_shortcut."] = b + "nin_shortcut."
            names[a] = b
    return names


def rename(name, names):
    for prefix in sorted(names, key=len, reverse=True):
        if name.startswith(prefix):
            return names[prefix] + name[len(prefix):]
    raise KeyError(name)


def open_clip(state):
    """OpenCLIP's tensors from transformers' names ("text_model.…")."""
    out = {"token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
           "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
           "ln_final.weight": state["text_model.final_layer_norm.weight"],
           "ln_final.bias": state["text_model.final_layer_norm.bias"]}
    if "text_projection.weight" in state:
        out["text_projection"] = state["text_projection.weight"].t().contiguous()
    layer = 0
    while f"text_model.encoder.layers.{layer}.layer_norm1.weight" in state:
        source, target = f"text_model.encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            for a, b in (("layer_norm1.", "ln_1."), ("layer_norm2.", "ln_2."), ("mlp.fc1.", "mlp.c_fc."),
                         ("mlp.fc2.", "mlp.c_proj."), ("self_attn.out_proj.", "attn.out_proj.")):
                out[target + b + kind] = state[source + a + kind]
            out[f"{target}attn.in_proj_{kind}"] = torch.cat(
                [state[f"{source}self_attn.{p}_proj.{kind}"] for p in "qkv"])
        layer += 1
    return out


def single_file(unet, unet_config, vae, vae_config, text, text_2=None, open_clip_text=False):
    """One LDM checkpoint from state dicts in diffusers' names."""
    out = {"model.diffusion_model." + rename(k, unet_names(unet_config)): v for k, v in unet.items()}
    for k, v in vae.items():
        is_attention = ".attentions.0.to_" in k and k.endswith("weight")
        name = "first_stage_model." + rename(k, vae_names(vae_config))
        out[name] = v[:, :, None, None].contiguous() if is_attention else v
    if text_2 is not None:
        out |= {"conditioner.embedders.0.transformer." + k: v for k, v in text.items()}
        out |= {"conditioner.embedders.1.model." + k: v for k, v in open_clip(text_2).items()}
    elif open_clip_text:
        out |= {"cond_stage_model.model." + k: v for k, v in open_clip(text).items()}
    else:
        out |= {"cond_stage_model.transformer." + k: v for k, v in text.items()}
    return out
