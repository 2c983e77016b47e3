"""Golden losses and weights of training: PEFT's LoRA in diffusers' loop, with torch's AdamW.

    python make_training.py     writes data/training.json and data/training.safetensors

The loop is the step of diffusers' train_dreambooth_lora.py and train_text_to_image_lora.py; weights, start
values, latents, noise and text follow formula.py. accelerate's clip_grad_norm_ is torch's. Pinned: torch 2.15.0,
diffusers 0.42.1, transformers 5.23.0, peft 0.21.2.
"""
import json
import pathlib

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import compute_snr
from peft import LoraConfig
from safetensors.torch import save_file

import formula
from make_pipeline import SCHEDULER, TINY

DATA = pathlib.Path(__file__).parent / "data"
RANK = 4
OPTIONS = dict(learning_rate=1e-3, weight_decay=0.01)
TIMESTEPS = [999, 3, 801, 250, 0, 512, 77, 640, 901, 333]
# `up` scales the start of B: 0 is LoRA's own start, where the gradient of A is zero in the first step. The tiny
# network's gradients have norms near 0.1, so that a limit of 0.1 clips some steps and leaves others alone. Adam's
# first steps go by the sign of a gradient however small: `inputs` names draws, chosen among a few, where none is
# rounding noise, which main() checks against PEFT's own run in fp64.
RUNS = {
    "zero_start": dict(inputs="zero_start_3", up=0.0, rows=2, class_rows=0, prior_weight=0.0, clip_norm=1.0),
    "small_start": dict(inputs="small_start", up=0.2, rows=1, class_rows=0, prior_weight=0.0, clip_norm=0.1),
    "prior": dict(inputs="prior_4", up=0.1, rows=2, class_rows=2, prior_weight=0.7, clip_norm=1.0),
}
LARGEST_ROUNDING = 1e-6  # of a weight
MIN_SNR_GAMMA = 5.0
# Timesteps on both sides of SNR = 5, and the last one, whose SNR is exactly 0 under zero terminal SNR.
MIN_SNR = {
    "v": dict(model="sd2", zero_terminal=False, timesteps=[1, 120, 350, 700, 999]),
    "v_zero": dict(model="sd2", zero_terminal=True, timesteps=[1, 120, 350, 700, 999]),
    "epsilon": dict(model="sd1", zero_terminal=False, timesteps=[1, 120, 350, 700, 999]),
}


def scheduler(model, **options):
    shared = {k: v for k, v in SCHEDULER.items() if k != "set_alpha_to_one"}
    return DDPMScheduler(**shared, prediction_type=TINY[model].get("prediction", "epsilon"), **options)


def inputs(key, rows):
    shape = (rows, 4, 16, 12)
    return (1.7 * formula.uniform(key + ".latents", shape), 1.7 * formula.uniform(key + ".noise", shape),
            formula.uniform(key + ".text", (rows, 7, 64)))


def unet_of(model):
    unet = UNet2DConditionModel(**TINY[model]["unet"]).train()
    formula.fill(unet)
    return unet.requires_grad_(False)


def predict(unet, noise_scheduler, batch, timesteps):
    """What the network says and what it should say."""
    latents, noise, text = batch
    noisy = noise_scheduler.add_noise(latents, noise, timesteps)
    prediction = unet(noisy, timesteps, text).sample
    if noise_scheduler.config.prediction_type == "epsilon":
        return prediction, noise
    return prediction, noise_scheduler.get_velocity(latents, noise, timesteps)


def add_lora(unet, up):
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    parameters = {}
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if parameter.requires_grad:
                name = name.replace(".default", "")
                scale = up if "lora_B" in name else 1.0
                parameter.copy_(scale * formula.weight(name, tuple(parameter.shape)))
                parameters[name] = parameter
    return parameters


def dreambooth_loss(prediction, target, run):
    if run["class_rows"] == 0:
        return F.mse_loss(prediction, target, reduction="mean")
    prediction, prediction_prior = torch.chunk(prediction, 2, dim=0)
    target, target_prior = torch.chunk(target, 2, dim=0)
    loss = F.mse_loss(prediction, target, reduction="mean")
    return loss + run["prior_weight"] * F.mse_loss(prediction_prior, target_prior, reduction="mean")


def train(run, dtype=torch.float32):
    unet, noise_scheduler = unet_of("sd1"), scheduler("sd1")
    parameters = add_lora(unet, run["up"])
    unet.to(dtype)
    optimizer = torch.optim.AdamW(parameters.values(), lr=OPTIONS["learning_rate"], betas=(0.9, 0.999),
                                  weight_decay=OPTIONS["weight_decay"], eps=1e-8)
    losses, norms, rows = [], [], run["rows"] + run["class_rows"]
    for step in range(len(TIMESTEPS)):
        timesteps = torch.tensor([TIMESTEPS[(step + row) % len(TIMESTEPS)] for row in range(rows)])
        batch = [tensor.to(dtype) for tensor in inputs(f"{run['inputs']}.{step}", rows)]
        prediction, target = predict(unet, noise_scheduler, batch, timesteps)
        loss = dreambooth_loss(prediction, target, run)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), run["clip_norm"]).item())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, norms, {name: parameter.detach() for name, parameter in parameters.items()}


def min_snr_losses(key, case):
    """The weighted error of every row, whose mean is the loss."""
    unet = unet_of(case["model"])
    noise_scheduler = scheduler(case["model"], rescale_betas_zero_snr=case["zero_terminal"])
    timesteps = torch.tensor(case["timesteps"])
    with torch.no_grad():
        batch = inputs("min_snr." + key, len(timesteps))
        prediction, target = predict(unet, noise_scheduler, batch, timesteps)
        snr = compute_snr(noise_scheduler, timesteps)
        weights = torch.stack([snr, MIN_SNR_GAMMA * torch.ones_like(timesteps)], dim=1).min(dim=1)[0]
        if noise_scheduler.config.prediction_type == "epsilon":
            weights = weights / snr
        else:
            weights = weights / (snr + 1)
        loss = F.mse_loss(prediction, target, reduction="none")
        loss = loss.mean(dim=list(range(1, len(loss.shape)))) * weights
    return loss.tolist(), loss.mean().item()


def main():
    torch.manual_seed(0)
    weights, runs, min_snr = {}, {}, {}
    for key, run in RUNS.items():
        losses, norms, final = train(run)
        exact = train(run, torch.float64)[2]
        rounding = max((final[name] - exact[name]).abs().max().item() for name in final)
        assert rounding < LARGEST_ROUNDING, (key, rounding)
        runs[key] = dict(run, losses=losses, gradient_norms=norms)
        weights.update({f"{key}.{name}": value.contiguous() for name, value in final.items()})
    for key, case in MIN_SNR.items():
        rows, loss = min_snr_losses(key, case)
        min_snr[key] = dict(case, rows=rows, loss=loss)
    save_file(weights, DATA / "training.safetensors")
    (DATA / "training.json").write_text(json.dumps(
        {"rank": RANK, **OPTIONS, "timesteps": TIMESTEPS, "runs": runs, "min_snr_gamma": MIN_SNR_GAMMA,
         "min_snr": min_snr}, indent=1) + "\n")


if __name__ == "__main__":
    main()
