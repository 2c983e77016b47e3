"""Writes a diffusers folder of a published model's shapes with random weights in bf16, for memory.py.

    python peer_models.py sd35|sdxl FOLDER [LAYERS]

The denoiser and the autoencoder are as large as the published ones: Stable Diffusion 3.5 medium has 2.2 billion
parameters, Stable Diffusion XL 2.6 billion. The two CLIP encoders have their widths and two layers
each, and T5 is left out. LAYERS below 24 make a smaller transformer.
"""
import json
import pathlib
import sys

DUAL = 13  # blocks with a second attention, the first ones


def clip(width, heads, activation):
    return dict(architectures=["CLIPTextModelWithProjection"], vocab_size=514, hidden_size=width,
                intermediate_size=4 * width, num_hidden_layers=2, num_attention_heads=heads,
                max_position_embeddings=77, hidden_act=activation, bos_token_id=512, eos_token_id=513,
                projection_dim=width)


def write_weights(make, file):
    """Numbers of a uniform distribution as narrow as a linear layer's, made in bf16 tensor by tensor."""
    import torch
    from safetensors.torch import save_file

    with torch.device("meta"):
        module = make()
    torch.manual_seed(0)
    tensors = {}
    for name, tensor in module.state_dict().items():
        bound = max(tensor.shape[1:].numel(), 1) ** -0.5 if tensor.dim() > 1 else 0.02
        fresh = torch.empty(tensor.shape, dtype=torch.bfloat16).uniform_(-bound, bound)
        is_norm = tensor.dim() == 1 and "norm" in name and name.endswith("weight")
        tensors[name] = fresh + 1.0 if is_norm else fresh
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)


def write_tokenizer(folder, pad):
    """The 512 byte tokens of CLIP, without any merge."""
    codes, extra = {}, 256
    for byte in range(256):
        printable = ord("!") <= byte <= ord("~") or (byte >= 0xA1 and byte != 0xAD)
        codes[byte] = chr(byte) if printable else chr(extra)
        extra += not printable
    vocabulary = {symbol: byte for byte, symbol in codes.items()}
    vocabulary |= {symbol + "</w>": 256 + byte for byte, symbol in codes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary | {"<|startoftext|>": 512, "<|endoftext|>": 513}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(model_max_length=77, pad_token=pad)))


def write_model(folder, parts, index, scheduler):
    """parts: by name the class and its configuration; `index`: what else model_index.json says."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    for part, (network, config) in parts.items():
        index[part] = ["diffusers", network.__name__]
        write_weights(lambda: network(**config), folder / part / "diffusion_pytorch_model.safetensors")
        (folder / part / "config.json").write_text(json.dumps(config | {"_class_name": network.__name__}))
    pooled_by_both = index["_class_name"] == "StableDiffusion3Pipeline"
    for number, config in {"": clip(768, 12, "quick_gelu"), "_2": clip(1280, 20, "gelu")}.items():
        encoder = CLIPTextModelWithProjection if number or pooled_by_both else CLIPTextModel
        index[f"text_encoder{number}"] = ["transformers", encoder.__name__]
        index[f"tokenizer{number}"] = ["transformers", "CLIPTokenizer"]
        write_weights(lambda: encoder(CLIPTextConfig(**config)), folder / f"text_encoder{number}/model.safetensors")
        (folder / f"text_encoder{number}/config.json").write_text(json.dumps(config | {"architectures": [encoder.__name__]}))
        write_tokenizer(folder / f"tokenizer{number}", "!" if number else "<|endoftext|>")
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "model_index.json").write_text(json.dumps(index))


def autoencoder(**config):
    return dict(block_out_channels=[128, 256, 512, 512], layers_per_block=2, sample_size=1024,
                down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, **config)


def write_sd35(folder, layers=24):
    from diffusers import AutoencoderKL, SD3Transformer2DModel

    transformer = dict(sample_size=128, patch_size=2, in_channels=16, out_channels=16, num_layers=layers,
                       attention_head_dim=64, num_attention_heads=24, joint_attention_dim=4096,
                       caption_projection_dim=1536, pooled_projection_dim=2048, pos_embed_max_size=384,
                       qk_norm="rms_norm", dual_attention_layers=list(range(min(DUAL, layers - 1))))
    vae = autoencoder(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False,
                      use_post_quant_conv=False)
    write_model(folder, {"transformer": (SD3Transformer2DModel, transformer), "vae": (AutoencoderKL, vae)},
                {"_class_name": "StableDiffusion3Pipeline", "text_encoder_3": [None, None], "tokenizer_3": [None, None]},
                {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})


def write_sdxl(folder):
    from diffusers import AutoencoderKL, UNet2DConditionModel

    unet = dict(sample_size=128, in_channels=4, out_channels=4, block_out_channels=[320, 640, 1280], layers_per_block=2,
                down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                transformer_layers_per_block=[1, 2, 10], attention_head_dim=[5, 10, 20], cross_attention_dim=2048,
                use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816)
    vae = autoencoder(latent_channels=4, scaling_factor=0.13025)
    scheduler = dict(_class_name="EulerDiscreteScheduler", beta_start=0.00085, beta_end=0.012,
                     beta_schedule="scaled_linear", num_train_timesteps=1000, prediction_type="epsilon", steps_offset=1,
                     timestep_spacing="leading")
    write_model(folder, {"unet": (UNet2DConditionModel, unet), "vae": (AutoencoderKL, vae)},
                {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True}, scheduler)


if __name__ == "__main__":
    kind, folder, *rest = sys.argv[1:]
    {"sd35": write_sd35, "sdxl": write_sdxl}[kind](pathlib.Path(folder), *map(int, rest))
