"""Golden trajectories of every sampler with an analytic function in place of the network.

    python make_schedules.py         writes data/schedules.json and data/schedules.safetensors

Latents are stored in the variance-preserving scale (x / sqrt(sigma^2 + 1) for k-diffusion's
schedulers). Pinned: torch 2.15.0, diffusers 0.42.1.
"""
import json
import math
import pathlib

import diffusers
import torch
from safetensors.torch import save_file

import formula

DATA = pathlib.Path(__file__).parent / "data"
SHAPE = (2, 2, 3, 4)
SD1 = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
           timestep_spacing="leading", clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True)
V_ZERO = dict(SD1, prediction_type="v_prediction", rescale_betas_zero_snr=True,
              timestep_spacing="trailing", steps_offset=0)
CONFIGS = {
    "sd1": SD1,
    "sd2_v": dict(SD1, prediction_type="v_prediction"),
    "v_zero": V_ZERO,
    "linspace": dict(SD1, timestep_spacing="linspace", steps_offset=0, beta_schedule="linear",
                     beta_start=0.0001, beta_end=0.02),
    "trailing": dict(SD1, timestep_spacing="trailing", steps_offset=0),
    "cosine": dict(SD1, beta_schedule="squaredcos_cap_v2", prediction_type="sample"),
    "clip": dict(SD1, clip_sample=True, clip_sample_range=0.8, set_alpha_to_one=True),
    "sigma_min": dict(SD1, final_sigmas_type="sigma_min"),
}
SAMPLERS = {
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "ddim-eta": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "heun-karras": ("HeunDiscreteScheduler", {"use_karras_sigmas": True}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp-2m-karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "dpmpp-2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp-2m-sde-karras": ("DPMSolverMultistepScheduler",
                            {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    "dpmpp-sde": ("DPMSolverSDEScheduler", {}),
    "dpmpp-sde-karras": ("DPMSolverSDEScheduler", {"use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "unipc-karras": ("UniPCMultistepScheduler", {"use_karras_sigmas": True}),
    "lcm": ("LCMScheduler", {}),
}
STEPS = {"sd1": [1, 2, 3, 10, 20], "sd2_v": [10], "v_zero": [10], "linspace": [1, 7], "trailing": [8],
         "cosine": [6], "clip": [5], "sigma_min": [6]}
# What the peer does not implement, or where its own arithmetic is no reference (see docs/samplers.md).
SKIP = {
    "v_zero": {"pndm", "heun", "heun-karras", "dpmpp-sde", "dpmpp-sde-karras", "lcm"},
    "cosine": {"pndm", "euler-ancestral", "dpmpp-2m-karras", "dpmpp-2m-sde-karras", "dpmpp-sde", "dpmpp-sde-karras"},
    "sigma_min": {"ddpm", "ddim", "ddim-eta", "pndm", "euler-ancestral", "heun", "heun-karras",
                  "dpmpp-sde", "dpmpp-sde-karras", "unipc-karras", "lcm"},
    "linspace": {"lcm"}, "trailing": {"lcm"},
    "clip": set(SAMPLERS) - {"ddpm", "ddim", "ddim-eta", "lcm"},
}
SECOND_ORDER = ("HeunDiscreteScheduler", "DPMSolverSDEScheduler")
STRENGTH_STARTS = {"ddim": 4, "euler": 4, "heun": 4, "dpmpp-2m": 4, "unipc": 4, "euler-ancestral": 4}


def network(x, t):
    t = float(t)
    return 0.3 * torch.tanh(1.7 * x + 0.001 * t) + 0.1 * torch.sin(2.0 * x.flip(-1) + 0.01 * t)


def draw(index):
    return 1.7 * formula.uniform(f"noise{index}", SHAPE)


class DoubleTorch:
    """torch whose float32 is float64, for a scheduler that casts its latents to float32."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


class PathNoise:
    """The Brownian path of DPMSolverSDE from two numbered draws per step."""

    def __init__(self, step):
        self.step, self.calls, self.first, self.middle = step, 0, None, None

    def __call__(self, sigma, sigma_next):
        self.calls += 1
        if self.calls % 2 == 1:
            self.first = (float(sigma), float(sigma_next))
            return draw(2 * self.step)
        a, b = self.first[0] - self.first[1], self.first[1] - float(sigma_next)
        noise = (math.sqrt(a) * draw(2 * self.step) + math.sqrt(b) * draw(2 * self.step + 1)) / math.sqrt(a + b)
        self.step += 1
        return noise


def trajectory(name, config, steps, start):
    cls_name, extra = SAMPLERS[name]
    cls = getattr(diffusers, cls_name)
    scheduler = cls.from_config({**config, **extra})
    scheduler.set_timesteps(steps)
    order = 2 if cls_name in SECOND_ORDER else 1
    scheduler.set_begin_index(start * order) if hasattr(scheduler, "set_begin_index") else None
    calls = {"n": start}

    def randn(*args, **kwargs):
        calls["n"] += 1
        return draw(calls["n"] - 1)

    module = __import__(cls.__module__, fromlist=["randn_tensor"])
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = randn
    if cls_name == "DPMSolverSDEScheduler":
        scheduler.noise_sampler = PathNoise(start)
    sigma_space = order == 2 or cls_name.startswith("Euler")
    noise = formula.uniform("start", SHAPE) * 1.7
    if sigma_space and config.get("rescale_betas_zero_snr"):
        # At sigma = 4096 the scheduler's own fp32 steps are off by 2e-5 and more.
        module.torch = DoubleTorch()
        noise = noise.double()
    x0 = formula.uniform("picture", SHAPE)
    timesteps = scheduler.timesteps[start * order:]
    if start:
        x = scheduler.add_noise(x0, noise, timesteps[:1].repeat(SHAPE[0]))
    else:
        x = noise * scheduler.init_noise_sigma
    kwargs = {"eta": 0.7} if name == "ddim-eta" else {}
    out = []
    for index, t in enumerate(timesteps):
        raw = network(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(raw, t, x, **kwargs).prev_sample
        if order == 2 and index % 2 == 0 and index + 1 < len(timesteps):
            continue
        scale = 1.0
        if sigma_space:
            scale = 1.0 / math.sqrt(float(scheduler.sigmas[scheduler.step_index]) ** 2 + 1.0)
        out.append(x * scale)
    module.torch = torch
    return torch.stack(out)


def main():
    tensors, cases = {}, []
    for config_name, config in CONFIGS.items():
        for sampler in SAMPLERS:
            if sampler in SKIP.get(config_name, set()):
                continue
            for steps in STEPS[config_name]:
                starts = [0]
                if config_name == "sd1" and steps == 10 and sampler in STRENGTH_STARTS:
                    starts.append(STRENGTH_STARTS[sampler])
                for start in starts:
                    key = f"{config_name}.{sampler}.{steps}.{start}"
                    tensors[key] = trajectory(sampler, config, steps, start).float().contiguous()
                    assert torch.isfinite(tensors[key]).all(), key
                    cases.append(dict(key=key, config=config_name, sampler=sampler, steps=steps, start=start))
    for config_name, config in CONFIGS.items():
        scheduler = diffusers.DDIMScheduler.from_config(config)
        tensors[f"{config_name}.alphas_cumprod"] = scheduler.alphas_cumprod.clone()
    save_file(tensors, DATA / "schedules.safetensors")
    (DATA / "schedules.json").write_text(json.dumps({"configs": CONFIGS, "cases": cases}, indent=1) + "\n")
    print(len(cases), "trajectories")


if __name__ == "__main__":
    main()
