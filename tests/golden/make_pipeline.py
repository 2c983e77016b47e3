"""Golden pictures of whole tiny pipelines, and the tensor lists of real checkpoints.

    python make_pipeline.py     writes data/pipelines.json, data/pipelines.safetensors and
                                data/single_file_shapes.json.gz

Weights follow formula.py. Every tiny model is also written as a single LDM file and loaded back by
diffusers, which proves the names of ldm.py. Pinned: torch 2.15.0, diffusers 0.42.1,
transformers 5.23.0.
"""
import gzip
import json
import pathlib
import tempfile

import torch
from diffusers import (AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline,
                       UNet2DConditionModel)
from diffusers.loaders.single_file_utils import (convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import formula
import ldm
from make_models import text_name

DATA = pathlib.Path(__file__).parent / "data"
SCHEDULER = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                 set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading")
VAE = dict(block_out_channels=[32, 64], layers_per_block=1, norm_num_groups=32, sample_size=32, latent_channels=4,
           scaling_factor=0.18215, down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2)
CLIP = dict(vocab_size=4514, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=1,
            max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=4512, eos_token_id=4513,
            projection_dim=64, architectures=["CLIPTextModel"])
OPEN_CLIP = dict(CLIP, hidden_act="gelu", num_hidden_layers=3, intermediate_size=128)
UNET = dict(sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, norm_num_groups=32,
            down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"])
# What a checkpoint with the markers v_pred and ztsnr means.
ZERO_SNR = dict(SCHEDULER, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
TINY = {
    "sd1": dict(unet=dict(UNET, block_out_channels=[32, 64], attention_head_dim=8, cross_attention_dim=64),
                text=CLIP),
    "sd2": dict(unet=dict(UNET, block_out_channels=[64, 128], attention_head_dim=[1, 2], cross_attention_dim=64,
                          use_linear_projection=True), text=dict(OPEN_CLIP, num_hidden_layers=2),
                prediction="v_prediction"),
    "sdxl": dict(unet=dict(UNET, block_out_channels=[64, 128], attention_head_dim=[1, 2], cross_attention_dim=128,
                           use_linear_projection=True, transformer_layers_per_block=[1, 2],
                           down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
                           up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"], addition_embed_type="text_time",
                           addition_time_embed_dim=256, projection_class_embeddings_input_dim=1536 + 64),
                 text=CLIP, text_2=dict(OPEN_CLIP, architectures=["CLIPTextModelWithProjection"]),
                 vae=dict(VAE, scaling_factor=0.13025)),
}
# transformers 5 removed the attribute that diffusers 0.42.1 still reads for clip_skip.
CLIPTextModel.text_model = property(lambda self: self)
PROMPT, NEGATIVE = "a photo of sks dog", "blurry, low quality"


def text_model(config, prefix):
    projected = "Projection" in config["architectures"][0]
    model = (CLIPTextModelWithProjection if projected else CLIPTextModel)(CLIPTextConfig(**config)).eval()
    return model, formula.fill(model, lambda name: prefix + text_name(name))


def strip(state, prefix):
    return {k[len(prefix):]: v for k, v in state.items()}


def fill(model, prefix):
    return model.eval(), formula.fill(model, lambda name: prefix + name)


def pipeline(spec):
    unet, unet_state = fill(UNet2DConditionModel(**spec["unet"]), "unet.")
    vae_config = spec.get("vae", VAE)
    vae, vae_state = fill(AutoencoderKL(**vae_config), "vae.")
    text, text_state = text_model(spec["text"], "text_encoder.")
    pad = "!" if spec.get("prediction") else "<|endoftext|>"
    tokenizer = CLIPTokenizer.from_pretrained(DATA / "tokenizer", pad_token=pad)
    scheduler = DDIMScheduler(**SCHEDULER, prediction_type=spec.get("prediction", "epsilon"))
    states = [strip(unet_state, "unet."), spec["unet"], strip(vae_state, "vae."), vae_config,
              strip(text_state, "text_encoder.")]
    if "text_2" not in spec:
        pipe = StableDiffusionPipeline(vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False)
        return pipe, states, None
    text_2, text_2_state = text_model(spec["text_2"], "text_encoder_2.")
    tokenizer_2 = CLIPTokenizer.from_pretrained(DATA / "tokenizer", pad_token="!")
    pipe = StableDiffusionXLPipeline(vae, text, text_2, tokenizer, tokenizer_2, unet, scheduler,
                                     force_zeros_for_empty_prompt=True, add_watermarker=False)
    return pipe, states, strip(text_2_state, "text_encoder_2.")


def run(pipe, key, negative=NEGATIVE, **options):
    pipe.set_progress_bar_config(disable=True)
    latents = 1.7 * formula.uniform(key + ".latents", (2, 4, 16, 12))
    common = dict(prompt=PROMPT, negative_prompt=negative, num_images_per_prompt=2, num_inference_steps=10,
                  guidance_scale=7.5, latents=latents, width=24, height=32, output_type="latent", **options)
    out = pipe(**common).images
    pixels = pipe.vae.decode(out / pipe.vae.config.scaling_factor).sample
    return out, pixels


def check_single_file(key, spec, pipe, checkpoint, expected):
    """diffusers reads our LDM file back and gives the same latents."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        pipe.save_pretrained(folder / "model")
        save_file(checkpoint, folder / "model.safetensors")
        # diffusers 0.42.1 cannot put LDM text encoders into the classes of transformers 5.
        texts = {name: getattr(pipe, name) for name in ("text_encoder", "text_encoder_2") if hasattr(pipe, name)}
        loaded = type(pipe).from_single_file(str(folder / "model.safetensors"), config=str(folder / "model"),
                                             local_files_only=True, safety_checker=None, **texts)
        loaded.scheduler = pipe.scheduler
        again, _ = run(loaded, key)
        assert torch.allclose(again, expected, rtol=1e-4, atol=1e-4), (key, (again - expected).abs().max())


def real_shapes():
    """Tensor names and shapes of the published models, in LDM form."""
    sd1 = dict(in_channels=4, cross_attention_dim=768, attention_head_dim=8)
    sd2 = dict(cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True)
    sdxl = dict(block_out_channels=(320, 640, 1280), layers_per_block=2, cross_attention_dim=2048,
                attention_head_dim=[5, 10, 20], use_linear_projection=True, transformer_layers_per_block=[1, 2, 10],
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                addition_embed_type="text_time", addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816)
    vae = dict(block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=4,
               down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
    clip_l = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    clip_h = CLIPTextConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
                            projection_dim=1024)
    clip_g = CLIPTextConfig(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
                            projection_dim=1280)

    def shapes(model, name=lambda n: n):
        return {name(k): torch.empty(v.shape, device="meta") for k, v in model.named_parameters()}

    out = {}
    with torch.device("meta"):
        vae_state = shapes(AutoencoderKL(**vae))
        texts = {"clip_l": shapes(CLIPTextModel(clip_l), text_name),
                 "clip_h": shapes(CLIPTextModelWithProjection(clip_h), text_name),
                 "clip_g": shapes(CLIPTextModelWithProjection(clip_g), text_name)}
        for key, config, text, text_2, is_open in (
                ("sd1", sd1, "clip_l", None, False), ("sd1_inpainting", dict(sd1, in_channels=9), "clip_l", None, False),
                ("sd2", sd2, "clip_h", None, True), ("sdxl", sdxl, "clip_l", "clip_g", False)):
            model = UNet2DConditionModel(**config)
            unet_state = shapes(model)
            full = dict(model.config)
            checkpoint = ldm.single_file(unet_state, full, vae_state, vae, texts[text],
                                         texts[text_2] if text_2 else None, is_open)
            back = convert_ldm_unet_checkpoint(dict(checkpoint), full)
            assert set(back) == set(unet_state), key
            assert all(back[k].shape == unet_state[k].shape for k in back), key
            back = convert_ldm_vae_checkpoint(dict(checkpoint), vae)
            assert set(back) == set(vae_state), key
            text_names = texts[text]
            if is_open:
                text_names = {k: v for k, v in text_names.items() if ".layers.23." not in k and "projection" not in k[:16]}
            listing = lambda state: {k: list(v.shape) for k, v in sorted(state.items())}
            out[key] = {"ldm": listing(checkpoint), "unet": listing(unet_state), "vae": listing(vae_state),
                        "text_encoder": listing(text_names),
                        "text_encoder_2": listing(texts[text_2]) if text_2 else None}
    return out


def main():
    torch.manual_seed(0)
    results, listing = {}, {}
    with torch.no_grad():
        for key, spec in TINY.items():
            pipe, states, text_2 = pipeline(spec)
            is_open = key == "sd2"
            latents, pixels = run(pipe, key)
            results[key + ".latents"], results[key + ".pixels"] = latents, pixels
            skip = 1 if key != "sdxl" else None
            if skip:
                # diffusers skips layers for the prompt only; web UIs and kohya for both prompts.
                embeds = pipe.encode_prompt(NEGATIVE, "cpu", 1, False, clip_skip=skip)[0]
                results[key + ".clip_skip"] = run(pipe, key, None, clip_skip=skip, negative_prompt_embeds=embeds)[0]
            else:
                results[key + ".no_negative"] = run(pipe, key, negative=None)[0]
            results[key + ".rescaled"] = run(pipe, key, guidance_rescale=0.7)[0]
            plain, pipe.scheduler = pipe.scheduler, DDIMScheduler(**ZERO_SNR)
            results[key + ".zero_snr"] = run(pipe, key)[0]
            pipe.scheduler = plain
            text = states[4]
            if is_open:  # LDM files of Stable Diffusion 2 hold one more layer and a projection
                text = dict(text)
                for name, value in states[4].items():
                    if ".layers.1." in name:
                        text[name.replace(".layers.1.", ".layers.2.")] = value
                text["text_projection.weight"] = torch.zeros(64, 64)
            checkpoint = ldm.single_file(*states[:4], text, text_2, is_open)
            if not is_open:  # diffusers recognises Stable Diffusion 2 by its real layer count only
                check_single_file(key, spec, pipe, checkpoint, latents)
            listing[key] = {
                "unet": spec["unet"], "vae": spec.get("vae", VAE), "text_encoder": spec["text"],
                "text_encoder_2": spec.get("text_2"),
                "scheduler": dict(SCHEDULER, _class_name="DDIMScheduler",
                                  prediction_type=spec.get("prediction", "epsilon")),
                "shapes": {"unet": {k: list(v.shape) for k, v in states[0].items()},
                           "vae": {k: list(v.shape) for k, v in states[2].items()},
                           "text_encoder": {k: list(v.shape) for k, v in states[4].items()},
                           "text_encoder_2": {k: list(v.shape) for k, v in text_2.items()} if text_2 else None},
                "ldm_names": {"unet": ldm.unet_names(spec["unet"]), "vae": ldm.vae_names(spec.get("vae", VAE))}}
    save_file({k: v.contiguous() for k, v in results.items()}, DATA / "pipelines.safetensors")
    (DATA / "pipelines.json").write_text(json.dumps(
        {"prompt": PROMPT, "negative": NEGATIVE, "models": listing}, separators=(",", ":")) + "\n")
    text = json.dumps(real_shapes(), separators=(",", ":")).encode()
    (DATA / "single_file_shapes.json.gz").write_bytes(gzip.compress(text, mtime=0))


if __name__ == "__main__":
    main()
