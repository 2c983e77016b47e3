"""Golden trajectories and training of tiny Stable Diffusion 3 and FLUX.1 models.

    python make_flow_pipelines.py     writes data/flow_pipelines.json and data/flow_pipelines.safetensors

Weights, start noise and what training sees follow formula.py. The pipelines are diffusers'; the ten steps are those of
its train_dreambooth_lora_sd3.py and train_dreambooth_lora_flux.py, with PEFT's LoRA and torch's AdamW. Pinned: torch
2.15.0, diffusers 0.42.1, transformers 5.23.0, peft 0.21.2.
"""
import json
import pathlib

import torch
from diffusers import (AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline,
                       FluxTransformer2DModel, SD3Transformer2DModel,
                       StableDiffusion3Pipeline)
from diffusers.training_utils import compute_loss_weighting_for_sd3
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import (CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5Config,
                          T5EncoderModel, T5Tokenizer)

import formula
from make_models import text_name
from make_pipeline import CLIP, OPEN_CLIP

DATA = pathlib.Path(__file__).parent / "data"
TOKENIZER_T5 = T5Tokenizer.from_pretrained(DATA / "tokenizers" / "t5")
PROMPT, NEGATIVE = "a photo of sks dog", "blurry, low quality"
TEXT_TOKENS, SIZE, STEPS = 24, (16, 12), 5
VAE = dict(block_out_channels=[8, 16], layers_per_block=1, norm_num_groups=4, sample_size=32, latent_channels=4,
           scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False,
           down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2)
T5 = dict(vocab_size=len(TOKENIZER_T5), d_model=144, d_ff=48, num_layers=2, num_heads=2, d_kv=8,
          feed_forward_proj="gated-gelu", relative_attention_num_buckets=8, relative_attention_max_distance=16,
          architectures=["T5EncoderModel"], model_type="t5")
PROJECTED = dict(architectures=["CLIPTextModelWithProjection"])
SD3 = dict(sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16,
           num_attention_heads=2, joint_attention_dim=144, caption_projection_dim=32, pooled_projection_dim=128,
           pos_embed_max_size=12)
FLUX = dict(patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=144, pooled_projection_dim=64, axes_dims_rope=[4, 6, 6])
SHIFT = dict(base_image_seq_len=256, max_image_seq_len=4096, base_shift=0.5, max_shift=1.15)
MODELS = {
    "sd3": dict(transformer=SD3, scheduler=dict(shift=3.0)),
    "sd3_without_t5": dict(transformer=SD3, scheduler=dict(shift=3.0), without_t5=True),
    "sd35": dict(transformer=dict(SD3, qk_norm="rms_norm", dual_attention_layers=[0]), scheduler=dict(shift=3.0)),
    "flux_dev": dict(transformer=dict(FLUX, guidance_embeds=True), scheduler=dict(SHIFT, shift=3.0,
                                                                                use_dynamic_shifting=True)),
    "flux_schnell": dict(transformer=dict(FLUX, guidance_embeds=False), scheduler=dict(SHIFT, shift=1.0)),
}
# Training: what a row's network sees is chosen by index of the scheduler's table, as in the scripts. `inputs` names
# draws, chosen among a few, where no gradient is rounding noise, which train() checks against PEFT's run in fp64.
INDICES = [999, 3, 801, 250, 20, 512, 77, 640, 901, 333]
RANK, LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM, GUIDANCE = 4, 1e-3, 1e-4, 1.0, 3.5
TARGETS = ["attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out", "attn.to_k", "attn.to_out.0",
           "attn.to_q", "attn.to_v"]
RUNS = {
    "sd3": dict(model="sd3", weighting="none", rows=2, class_rows=0),
    "sd35_sigma_sqrt": dict(model="sd35", weighting="sigma_sqrt", rows=1, class_rows=0),
    "flux_dev": dict(model="flux_dev", weighting="none", rows=2, class_rows=0),
    "flux_schnell_prior": dict(model="flux_schnell", weighting="cosmap", rows=1, class_rows=1, prior_weight=0.7),
}
LARGEST_ROUNDING = 1e-6  # of a weight


def fill(model, prefix, name=lambda n: n):
    states = formula.fill(model.eval(), lambda n: prefix + name(n))
    return model, {k[len(prefix):]: list(v.shape) for k, v in states.items()}


def is_flux(key):
    return key.startswith("flux")


def transformer_of(key):
    config = MODELS[key]["transformer"]
    kind = FluxTransformer2DModel if is_flux(key) else SD3Transformer2DModel
    return fill(kind(**config), "transformer.")


def clip(config, prefix):
    kind = CLIPTextModelWithProjection if "Projection" in config["architectures"][0] else CLIPTextModel
    return fill(kind(CLIPTextConfig(**config)), prefix, text_name)


def pipeline(key):
    spec, shapes = MODELS[key], {}
    transformer, shapes["transformer"] = transformer_of(key)
    vae, shapes["vae"] = fill(AutoencoderKL(**VAE), "vae.")
    t5_name = "text_encoder_2" if is_flux(key) else "text_encoder_3"
    t5, t5_shapes = fill(T5EncoderModel(T5Config(**T5)), t5_name + ".")
    scheduler = FlowMatchEulerDiscreteScheduler(**spec["scheduler"])
    first = CLIP if is_flux(key) else dict(CLIP, **PROJECTED)
    text, shapes["text_encoder"] = clip(first, "text_encoder.")
    tokenizer = CLIPTokenizer.from_pretrained(DATA / "tokenizer", pad_token="<|endoftext|>")
    configs = dict(transformer=spec["transformer"], vae=VAE, text_encoder=first,
                   scheduler=dict(spec["scheduler"], _class_name="FlowMatchEulerDiscreteScheduler"))
    if is_flux(key):
        shapes[t5_name], configs[t5_name] = t5_shapes, T5
        parts = dict(text_encoder_2=t5, tokenizer_2=TOKENIZER_T5)
    else:
        second = dict(OPEN_CLIP, **PROJECTED)
        text_2, shapes["text_encoder_2"] = clip(second, "text_encoder_2.")
        configs["text_encoder_2"] = second
        parts = dict(text_encoder_2=text_2, tokenizer_3=TOKENIZER_T5, text_encoder_3=t5,
                     tokenizer_2=CLIPTokenizer.from_pretrained(DATA / "tokenizer", pad_token="!"))
        if spec.get("without_t5"):
            parts.update(tokenizer_3=None, text_encoder_3=None)
        else:
            shapes[t5_name], configs[t5_name] = t5_shapes, T5
    kind = FluxPipeline if is_flux(key) else StableDiffusion3Pipeline
    pipe = kind(scheduler=scheduler, vae=vae, text_encoder=text, tokenizer=tokenizer, transformer=transformer, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe, dict(configs, shapes=shapes)


def latents_of(pipe, packed):
    if packed.dim() == 4:
        return packed
    height, width = SIZE
    return FluxPipeline._unpack_latents(packed, 2 * height, 2 * width, 2)


def pack(latents):
    return FluxPipeline._pack_latents(latents, latents.shape[0], latents.shape[1], *latents.shape[2:])


def run(pipe, key):
    latents = 1.7 * formula.uniform(key + ".latents", (2, 4, *SIZE))
    common = dict(prompt=PROMPT, num_images_per_prompt=2, max_sequence_length=TEXT_TOKENS, height=2 * SIZE[0],
                  width=2 * SIZE[1], output_type="latent")
    if not is_flux(key):
        out = pipe(**common, latents=latents, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=7.0)
        return {".latents": out.images}
    if key == "flux_schnell":
        return {".latents": pipe(**common, latents=pack(latents), num_inference_steps=4).images}
    out = {".latents": pipe(**common, latents=pack(latents), num_inference_steps=STEPS, guidance_scale=3.5).images}
    out[".true_guidance"] = pipe(**common, latents=pack(latents), num_inference_steps=STEPS, guidance_scale=2.0,
                                 negative_prompt=NEGATIVE, true_cfg_scale=4.0).images
    return out


def train(key, run, dtype=torch.float32):
    model, _ = transformer_of(run["model"])
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=TARGETS))
    parameters = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                name = name.replace(".default", "")
                scale = 0.2 if "lora_B" in name else 1.0
                parameter.copy_(scale * formula.weight(name, tuple(parameter.shape)))
                parameters[name] = parameter
    model.to(dtype)
    optimizer = torch.optim.AdamW(parameters.values(), lr=LEARNING_RATE, betas=(0.9, 0.999),
                                  weight_decay=WEIGHT_DECAY, eps=1e-8)
    scheduler = FlowMatchEulerDiscreteScheduler(**MODELS[run["model"]]["scheduler"])
    rows, losses, norms = run["rows"] + run["class_rows"], [], []
    text_width, pooled = model.config.joint_attention_dim, model.config.pooled_projection_dim
    for step in range(len(INDICES)):
        name = f"{run.get('inputs', key)}.{step}"
        latents = 1.7 * formula.uniform(name + ".latents", (rows, 4, *SIZE)).to(dtype)
        noise = 1.7 * formula.uniform(name + ".noise", (rows, 4, *SIZE)).to(dtype)
        text = formula.uniform(name + ".text", (rows, 7, text_width)).to(dtype)
        pool = formula.uniform(name + ".pooled", (rows, pooled)).to(dtype)
        indices = torch.tensor([INDICES[(step + row) % len(INDICES)] for row in range(rows)])
        timesteps = scheduler.timesteps[indices]
        sigmas = scheduler.sigmas[indices].to(dtype).view(-1, 1, 1, 1)
        noisy = (1.0 - sigmas) * latents + sigmas * noise
        if is_flux(run["model"]):
            guidance = torch.full((rows,), GUIDANCE) if model.config.guidance_embeds else None
            said = model(hidden_states=pack(noisy), timestep=timesteps / 1000, guidance=guidance,
                         pooled_projections=pool, encoder_hidden_states=text, txt_ids=torch.zeros(7, 3),
                         img_ids=FluxPipeline._prepare_latent_image_ids(rows, SIZE[0] // 2, SIZE[1] // 2, "cpu",
                                                                        torch.float32), return_dict=False)[0]
            said = latents_of(None, said)
        else:
            said = model(hidden_states=noisy, timestep=timesteps, encoder_hidden_states=text, pooled_projections=pool,
                         return_dict=False)[0]
        weights = compute_loss_weighting_for_sd3(run["weighting"], sigmas)
        errors = (weights.to(dtype) * (said - (noise - latents)) ** 2).reshape(rows, -1).mean(1)
        loss = errors[:run["rows"]].mean()
        if run["class_rows"]:
            loss = loss + run["prior_weight"] * errors[run["rows"]:].mean()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP_NORM).item())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, norms, {name: parameter.detach() for name, parameter in parameters.items()}


def checked_run(key, run):
    """The run with the first inputs for which fp32 and fp64 agree."""
    for draw in range(20):
        run = dict(run, inputs=f"{key}_{draw}")
        losses, norms, final = train(key, run)
        exact = train(key, run, torch.float64)[2]
        rounding = max((final[name] - exact[name]).abs().max().item() for name in final)
        if rounding < LARGEST_ROUNDING:
            return dict(run, losses=losses, gradient_norms=norms), final
    raise AssertionError((key, rounding))


def main():
    torch.manual_seed(0)
    tensors, listing, runs = {}, {}, {}
    with torch.no_grad():
        for key in MODELS:
            pipe, listing[key] = pipeline(key)
            for part, value in run(pipe, key).items():
                tensors[key + part] = latents_of(pipe, value)
            vae = pipe.vae
            tensors[key + ".pixels"] = vae.decode(
                tensors[key + ".latents"][:1] / vae.config.scaling_factor + vae.config.shift_factor).sample
    for key, spec in RUNS.items():
        runs[key], final = checked_run(key, spec)
        tensors.update({f"{key}.{name}": value for name, value in final.items()})
    save_file({k: v.contiguous() for k, v in tensors.items()}, DATA / "flow_pipelines.safetensors")
    (DATA / "flow_pipelines.json").write_text(json.dumps(
        {"prompt": PROMPT, "negative": NEGATIVE, "text_tokens": TEXT_TOKENS, "steps": STEPS, "models": listing,
         "rank": RANK, "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "clip_norm": CLIP_NORM,
         "guidance": GUIDANCE, "indices": INDICES, "runs": runs}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
