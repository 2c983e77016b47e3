"""Golden sigmas and trajectories of rectified flow with an analytic function as the network.

    python make_flow.py         writes data/flow.json and data/flow.safetensors

Sigmas: what diffusers' schedulers lay out, for FLUX-like models as its pipelines ask them.
Trajectories: the steps of FlowMatchEulerDiscrete, FlowMatchHeunDiscrete, DPMSolverMultistep and
UniPCMultistep. The last two are given the sigmas of the case, and walk their own grids (which avoid sigma = 1 and
cut timesteps to integers) in the cases "own".

Times and weights of training: what diffusers' training scripts make of given random numbers. Pinned: torch 2.15.0, diffusers 0.42.1, numpy 2.
"""
import json
import pathlib

import diffusers
import diffusers.training_utils
import numpy as np
import torch
from safetensors.torch import save_file

import formula

DATA = pathlib.Path(__file__).parent / "data"
SHAPE = (2, 2, 3, 4)
EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
CONFIGS = {
    "plain": dict(EULER, shift=1.0),
    "sd3": dict(EULER, shift=3.0),
    "karras": dict(EULER, shift=3.0, use_karras_sigmas=True),
    "exponential": dict(EULER, shift=2.0, use_exponential_sigmas=True),
    "flux": dict(EULER, shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15,
                 base_image_seq_len=256, max_image_seq_len=4096),
    "linear": dict(EULER, use_dynamic_shifting=True, time_shift_type="linear", base_shift=0.5,
                   max_shift=1.15),
    "ltx": dict(EULER, use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05,
                base_image_seq_len=1024, max_image_seq_len=4096, shift_terminal=0.1),
    "heun": {"_class_name": "FlowMatchHeunDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0},
    "unipc": {"_class_name": "UniPCMultistepScheduler", "num_train_timesteps": 1000,
              "prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 5.0},
    "dpm": {"_class_name": "DPMSolverMultistepScheduler", "num_train_timesteps": 1000,
            "prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
    "unipc_dynamic": {"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction",
                      "use_flow_sigmas": True, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
    "dpm_dynamic": {"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction",
                    "use_flow_sigmas": True, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
    "schnell": dict(EULER, shift=1.0, base_shift=0.5, max_shift=1.15),
}
SIZES = {"flux": [(512, 512), (1024, 1024), (1360, 768)], "linear": [(1024, 1024)], "ltx": [(1024, 1024), (704, 480)],
         "unipc_dynamic": [(1024, 768)], "dpm_dynamic": [(1024, 768)]}
SPACING = {"schnell": "trailing"}  # as FluxPipeline asks, whatever the shift
STEPS = [1, 2, 4, 28]


def mu_of(config, width, height):
    """calculate_shift of diffusers' pipelines; a token is 16 x 16 pixels."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    m = (config["max_shift"] - config["base_shift"]) / (high - low)
    return (width // 16) * (height // 16) * m + config["base_shift"] - m * low


def laid_out(name, steps, size):
    """As FluxPipeline asks where the shift or the spacing is its own, else as a scheduler alone does it."""
    config = CONFIGS[name]
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    even = np.linspace(1.0, 1.0 / steps, steps)
    if size and config.get("use_flow_sigmas"):
        scheduler.set_timesteps(steps, mu=mu_of(config, *size))
    elif size:
        scheduler.set_timesteps(sigmas=even, mu=mu_of(config, *size))
    elif name in SPACING:
        scheduler.set_timesteps(sigmas=even)
    else:
        scheduler.set_timesteps(steps)
    return scheduler


def grid_of(name, steps, size):
    scheduler = laid_out(name, steps, size)
    sigmas, times = scheduler.sigmas.tolist(), scheduler.timesteps.tolist()
    if CONFIGS[name]["_class_name"].startswith("FlowMatchHeun"):
        sigmas, times = sigmas[:1] + sigmas[1:-1:2] + sigmas[-1:], times[:1] + times[1::2]
    return sigmas, times


def sigmas_of(name, steps, size):
    return grid_of(name, steps, size)[0]


def network(x, t):
    t = float(t)
    return 0.3 * torch.tanh(1.7 * x + 0.001 * t) + 0.1 * torch.sin(2.0 * x.flip(-1) + 0.01 * t)


def draw(index):
    return 1.7 * formula.uniform(f"noise{index}", SHAPE)


MULTISTEP = {
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp-2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


def scheduler_of(sampler, sigmas):
    if sampler == "euler":
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(CONFIGS["plain"])
        scheduler.set_timesteps(sigmas=sigmas[:-1])
    elif sampler == "heun":
        scheduler = diffusers.FlowMatchHeunDiscreteScheduler.from_config({"num_train_timesteps": 1000})
        scheduler.set_timesteps(len(sigmas) - 1)
        given = torch.tensor(sigmas)
        scheduler.sigmas = torch.cat([given[:1], given[1:-1].repeat_interleave(2), given[-1:]])
        times = given[:-1] * 1000
        scheduler.timesteps = torch.cat([times[:1], times[1:].repeat_interleave(2)])
    else:
        name, extra = MULTISTEP[sampler]
        scheduler = getattr(diffusers, name)(prediction_type="flow_prediction", use_flow_sigmas=True, **extra)
        scheduler.set_timesteps(len(sigmas) - 1)
        scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)
        scheduler.timesteps = scheduler.sigmas[:-1] * 1000
    scheduler.set_begin_index(0)
    return scheduler


def trajectory(sampler, sigmas):
    return walked(sampler, scheduler_of(sampler, sigmas))


def walked(sampler, scheduler):
    calls = {"n": 0}

    def randn(*args, **kwargs):
        calls["n"] += 1
        return draw(calls["n"] - 1).double()

    module = __import__(type(scheduler).__module__, fromlist=["randn_tensor"])
    if sampler == "dpmpp-2m-sde":
        module.randn_tensor = randn
    x = (1.7 * formula.uniform("start", SHAPE)).double()
    out = []
    for index, t in enumerate(scheduler.timesteps):
        x = scheduler.step(network(x, t), t, x).prev_sample
        if sampler == "heun" and index % 2 == 0 and index + 1 < len(scheduler.timesteps):
            continue  # a guess, which the next call corrects
        out.append(x)
    return torch.stack(out)


def training_values():
    utils, given = diffusers.training_utils, [0.001, 0.1, 0.25, 0.5, 0.625, 0.9, 0.999]
    normal = [-3.0, -1.2, -0.1, 0.0, 0.7, 2.5]
    draws = torch.rand, torch.normal
    torch.rand = lambda size, **_: torch.tensor(given)
    torch.normal = lambda mean, std, size, **_: torch.tensor(normal) * std + mean
    times = []
    for name, random, options in (("uniform", given, {}), ("logit_normal", normal, {"mean": 0.0, "std": 1.0}),
                                  ("logit_normal", normal, {"mean": -0.5, "std": 1.7}),
                                  ("mode", given, {"scale": 1.29}), ("mode", given, {"scale": 0.81})):
        values = utils.compute_density_for_timestep_sampling(
            name, len(random), options.get("mean"), options.get("std"), options.get("scale"))
        times.append({"name": name.replace("_", "-"), "random": random, "options": options,
                      "times": values.tolist()})
    torch.rand, torch.normal = draws
    sigmas = torch.tensor(given, dtype=torch.float64)
    weights = [{"name": name.replace("_", "-"), "sigmas": given,
                "weights": utils.compute_loss_weighting_for_sd3(name, sigmas).tolist()}
               for name in ("none", "sigma_sqrt", "cosmap")]
    return {"times": times, "weights": weights}


def main():
    tables, cases, tensors = [], [], {}
    for name, config in CONFIGS.items():
        for size in SIZES.get(name, [None]):
            for steps in STEPS:
                if name == "ltx" and steps == 1:  # 0 / 0 in the reference
                    continue
                sigmas, times = grid_of(name, steps, size)
                tables.append({"config": name, "steps": steps, "size": size, "spacing": SPACING.get(name),
                               "sigmas": [round(s, 9) for s in sigmas], "timesteps": [round(t, 4) for t in times]})
    for grid, config, steps, size in (("sd3", "sd3", 10, None), ("flux", "flux", 6, (1024, 1024)),
                                      ("one", "sd3", 1, None), ("two", "flux", 2, (512, 512))):
        sigmas = sigmas_of(config, steps, size)
        for late in (False, True):  # late: from a picture, below pure noise
            if late and steps < 4:
                continue
            used = sigmas[2:] if late else sigmas
            for sampler in ("euler", "heun", *MULTISTEP):
                if sampler == "unipc" and not late:
                    continue  # NaN in the reference from sigma = 1
                key = f"{grid}.{sampler}{'.late' if late else ''}"
                tensors[key] = trajectory(sampler, used).float().contiguous()
                assert torch.isfinite(tensors[key]).all(), key
                cases.append({"key": key, "sampler": sampler, "sigmas": used})
    own = []
    for config, sampler, steps, size in (("schnell", "euler", 4, None), ("sd3", "euler", 7, None),
                                         ("heun", "heun", 5, None), ("flux", "euler", 5, (1024, 1024)),
                                         ("dpm", "dpmpp-2m", 8, None), ("dpm", "dpmpp-2m", 2, None),
                                         ("dpm_dynamic", "dpmpp-2m", 6, (1024, 768)), ("unipc", "unipc", 8, None),
                                         ("unipc", "unipc", 3, None), ("unipc_dynamic", "unipc", 6, (1024, 768))):
        key = f"own.{config}.{steps}"
        tensors[key] = walked(sampler, laid_out(config, steps, size)).float().contiguous()
        assert torch.isfinite(tensors[key]).all(), key
        own.append({"key": key, "config": config, "sampler": sampler, "steps": steps, "size": size,
                    "spacing": SPACING.get(config)})
    save_file(tensors, DATA / "flow.safetensors")
    text = {"configs": CONFIGS, "tables": tables, "cases": cases, "own": own, **training_values()}
    (DATA / "flow.json").write_text(json.dumps(text) + "\n")
    print(len(tables), "tables,", len(cases), "trajectories")


if __name__ == "__main__":
    main()
