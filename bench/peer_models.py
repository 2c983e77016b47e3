"""Writes a diffusers folder of Stable Diffusion 3.5 medium's shapes with random weights in bf16, for memory.py.

    python peer_sd3.py FOLDER [LAYERS]

The transformer and the autoencoder are as large as the published ones (2.2 and 0.08 billion parameters). The two
CLIP encoders have their widths and two layers each, T5 is left out, and LAYERS below 24 make a smaller transformer.
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


def write(folder, layers):
    from diffusers import AutoencoderKL, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    transformer = dict(sample_size=128, patch_size=2, in_channels=16, out_channels=16, num_layers=layers,
                       attention_head_dim=64, num_attention_heads=24, joint_attention_dim=4096,
                       caption_projection_dim=1536, pooled_projection_dim=2048, pos_embed_max_size=384,
                       qk_norm="rms_norm", dual_attention_layers=list(range(min(DUAL, layers - 1))))
    vae = dict(block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=16, sample_size=1024,
               scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False,
               down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
    parts = {"transformer": (SD3Transformer2DModel, transformer), "vae": (AutoencoderKL, vae)}
    index = {"_class_name": "StableDiffusion3Pipeline", "text_encoder_3": [None, None], "tokenizer_3": [None, None],
             "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
    for part, (kind, config) in parts.items():
        index[part] = ["diffusers", kind.__name__]
        write_weights(lambda: kind(**config), folder / part / "diffusion_pytorch_model.safetensors")
        (folder / part / "config.json").write_text(json.dumps(config | {"_class_name": kind.__name__}))
    for number, config in {"": clip(768, 12, "quick_gelu"), "_2": clip(1280, 20, "gelu")}.items():
        index[f"text_encoder{number}"] = ["transformers", "CLIPTextModelWithProjection"]
        index[f"tokenizer{number}"] = ["transformers", "CLIPTokenizer"]
        write_weights(lambda: CLIPTextModelWithProjection(CLIPTextConfig(**config)),
                      folder / f"text_encoder{number}/model.safetensors")
        (folder / f"text_encoder{number}/config.json").write_text(json.dumps(config))
        write_tokenizer(folder / f"tokenizer{number}", "!" if number else "<|endoftext|>")
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler/scheduler_config.json").write_text(
        json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}))
    (folder / "model_index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 24)
