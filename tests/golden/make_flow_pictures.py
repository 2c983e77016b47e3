"""Golden trajectories of tiny Stable Diffusion 3 and FLUX.1 models from pictures, with masks, with control pictures and
with every flow sampler.

    python make_flow_pictures.py     writes data/flow_pictures.json and data/flow_pictures.safetensors

Weights and start noise follow formula.py, pictures picture() below. Every tensor holds the latents after each step of
one of diffusers' pipelines. The autoencoders have no deviation, so that encoding a picture is no draw. Pinned as
make_flow_pipelines.py.
"""
import json
import pathlib
import sys

import numpy as np
import torch
from diffusers import (DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler,
                       FluxControlPipeline, FluxImg2ImgPipeline, FluxInpaintPipeline, FluxPipeline,
                       StableDiffusion3Img2ImgPipeline, StableDiffusion3InpaintPipeline, StableDiffusion3Pipeline,
                       UniPCMultistepScheduler)
from PIL import Image
from safetensors.torch import save_file

import formula
import make_flow_pipelines as base

DATA = base.DATA
CHANNELS, STEPS, STRENGTH = 16, 5, 0.7  # what diffusers inpaints in Stable Diffusion 3 has 16 channels
HEIGHT, WIDTH = 2 * base.SIZE[0], 2 * base.SIZE[1]
KEPT = slice(None, None, 5)  # channels in the file
SOLVER = dict(prediction_type="flow_prediction", use_flow_sigmas=True)
DYNAMIC = dict(base.SHIFT, use_dynamic_shifting=True)
base.VAE = dict(base.VAE, latent_channels=CHANNELS)
EULER = {"sd3": dict(shift=3.0), "flux": dict(DYNAMIC, shift=3.0)}
TRANSFORMERS = {"sd3": dict(base.SD3, in_channels=CHANNELS, out_channels=CHANNELS),
                "flux": dict(base.FLUX, in_channels=4 * CHANNELS, guidance_embeds=True)}
# The transformer of FLUX.1 Canny: twice the channels, of which the second half are the control picture's.
TRANSFORMERS["flux_control"] = dict(TRANSFORMERS["flux"], in_channels=8 * CHANNELS, out_channels=4 * CHANNELS)
EULER["flux_control"] = EULER["flux"]
CASES = {
    "sd3.picture": dict(kind=StableDiffusion3Img2ImgPipeline, picture=True),
    "sd3.mask": dict(kind=StableDiffusion3InpaintPipeline, picture=True, mask=True),
    "sd3.mask_full": dict(kind=StableDiffusion3InpaintPipeline, picture=True, mask=True, strength=1.0),
    "flux.picture": dict(kind=FluxImg2ImgPipeline, picture=True),
    "flux.picture_weak": dict(kind=FluxImg2ImgPipeline, picture=True, strength=0.5),
    "flux.mask": dict(kind=FluxInpaintPipeline, picture=True, mask=True),
    "flux_control.control": dict(kind=FluxControlPipeline, control=True),
    "sd3.heun": dict(kind=StableDiffusion3Pipeline, scheduler=FlowMatchHeunDiscreteScheduler(shift=3.0)),
    "sd3.heun_picture": dict(kind=StableDiffusion3Img2ImgPipeline, picture=True,
                             scheduler=FlowMatchHeunDiscreteScheduler(shift=3.0)),
    "sd3.dpm": dict(kind=StableDiffusion3Pipeline, scheduler=DPMSolverMultistepScheduler(**SOLVER, flow_shift=3.0)),
    "sd3.unipc": dict(kind=StableDiffusion3Pipeline, scheduler=UniPCMultistepScheduler(**SOLVER, flow_shift=3.0)),
    "sd3.euler_dynamic": dict(kind=StableDiffusion3Pipeline,
                              scheduler=FlowMatchEulerDiscreteScheduler(**DYNAMIC)),
    "flux.dpm_dynamic": dict(kind=FluxPipeline,
                             scheduler=DPMSolverMultistepScheduler(**SOLVER, use_dynamic_shifting=True)),
    "flux.unipc_dynamic": dict(kind=FluxPipeline,
                               scheduler=UniPCMultistepScheduler(**SOLVER, use_dynamic_shifting=True)),
    "flux.unipc": dict(kind=FluxPipeline, scheduler=UniPCMultistepScheduler(**SOLVER, flow_shift=2.0)),
}


def picture():
    """[HEIGHT, WIDTH, 3] bytes."""
    rows, columns, colours = np.ogrid[:HEIGHT, :WIDTH, :3]
    return Image.fromarray(((rows * 7 + columns * 13 + colours * 50) % 256).astype(np.uint8))


def mask():
    """White where 6 <= column + row / 2 < 20."""
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    place = columns + rows // 2
    white = np.broadcast_to((place >= 6) & (place < 20), (HEIGHT, WIDTH))
    return Image.fromarray(np.repeat(white[:, :, None] * np.uint8(255), 3, axis=2))


def quiet(vae):
    """The autoencoder with a deviation of nothing."""
    last = vae.encoder.conv_out
    last.weight[CHANNELS:] = 0.0
    last.bias[CHANNELS:] = -30.0


def opened(key):
    base.MODELS[key] = dict(transformer=TRANSFORMERS[key], scheduler=EULER[key])
    pipe, listing = base.pipeline(key)
    quiet(pipe.vae)
    return pipe, listing


def run(pipe, key, case):
    steps = []

    def keep(_, step, timestep, values):
        steps.append(base.latents_of(None, values["latents"]))
        return values

    noise = 1.7 * formula.uniform("noise", (1, CHANNELS, *base.SIZE))
    kind = case["kind"]
    kept = {name: value for name, value in pipe.components.items() if value is not None}
    made = kind(**kept)
    if "scheduler" in case:
        made.scheduler = case["scheduler"]
    made.set_progress_bar_config(disable=True)
    arguments = dict(prompt=base.PROMPT, max_sequence_length=base.TEXT_TOKENS, height=HEIGHT, width=WIDTH,
                     num_inference_steps=STEPS, guidance_scale=7.0 if key == "sd3" else 3.5, output_type="latent",
                     callback_on_step_end=keep)
    if key == "sd3":
        arguments["negative_prompt"] = base.NEGATIVE
    if case.get("picture"):
        arguments.update(image=picture(), strength=case.get("strength", STRENGTH))
        # These pipelines draw the noise: what they are given as latents is where they start.
        sys.modules[kind.__module__].randn_tensor = lambda *_, **__: noise.clone()
    else:
        arguments["latents"] = noise if key == "sd3" else base.pack(noise)
    if case.get("mask"):
        arguments["mask_image"] = mask()
    if case.get("control"):
        arguments["control_image"] = picture()
    last = base.latents_of(None, made(**arguments).images)
    assert torch.equal(last, steps[-1]), key
    if "Heun" in type(made.scheduler).__name__:  # every second step is a guess
        steps = steps[1::2] + ([] if len(steps) % 2 == 0 else steps[-1:])
    return torch.cat(steps)[:, KEPT]


def scheduler_of(case, model):
    """The configuration's fields that JSON has."""
    if "scheduler" not in case:
        return model["scheduler"]
    config = {k: v for k, v in case["scheduler"].config.items() if not k.startswith("_") and v != -float("inf")}
    return dict(config, _class_name=type(case["scheduler"]).__name__)


def main():
    torch.manual_seed(0)
    tensors, models, cases = {}, {}, {}
    with torch.no_grad():
        pipes = {key: opened(key) for key in TRANSFORMERS}
        for name, case in CASES.items():
            key = name.split(".")[0]
            pipe, models[key] = pipes[key]
            tensors[name] = run(pipe, key, case).contiguous()
            assert torch.isfinite(tensors[name]).all(), name
            cases[name] = dict(scheduler=scheduler_of(case, models[key]), strength=case.get("strength", STRENGTH),
                               **{what: case.get(what, False) for what in ("picture", "mask", "control")})
    save_file(tensors, DATA / "flow_pictures.safetensors")
    (DATA / "flow_pictures.json").write_text(json.dumps(
        {"steps": STEPS, "size": [WIDTH, HEIGHT], "channels": CHANNELS, "cases": cases, "models": models},
        separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
