"""Golden sigmas and trajectories of rectified flow with an analytic function as the network.

    python make_flow.py         writes data/flow.json and data/flow.safetensors

Sigmas: what diffusers' schedulers lay out, for FLUX-like models as its pipelines ask them.
Trajectories: the steps of FlowMatchEulerDiscrete, FlowMatchHeunDiscrete, DPMSolverMultistep and
UniPCMultistep. The last two are given the sigmas of the case (their own grids avoid sigma = 1 and
cut timesteps to integers). Pinned: torch 2.15.0, diffusers 0.42.1, numpy 2.
"""
import json
import pathlib

import diffusers
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
}
SIZES = {"flux": [(512, 512), (1024, 1024), (1360, 768)], "linear": [(1024, 1024)], "ltx": [(1024, 1024), (704, 480)]}
STEPS = [1, 2, 4, 28]


def mu_of(config, width, height):
    """calculate_shift of diffusers' pipelines; a token is 16 x 16 pixels."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    m = (config["max_shift"] - config["base_shift"]) / (high - low)
    return (width // 16) * (height // 16) * m + config["base_shift"] - m * low


def sigmas_of(config, steps, size):
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    if size:
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps), mu=mu_of(config, *size))
    else:
        scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.tolist()
    if config["_class_name"].startswith("FlowMatchHeun"):
        sigmas = sigmas[:1] + sigmas[1:-1:2] + sigmas[-1:]
    return sigmas


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
    scheduler = scheduler_of(sampler, sigmas)
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


def main():
    tables, cases, tensors = [], [], {}
    for name, config in CONFIGS.items():
        for size in SIZES.get(name, [None]):
            for steps in STEPS:
                if name == "ltx" and steps == 1:  # 0 / 0 in the reference
                    continue
                tables.append({"config": name, "steps": steps, "size": size,
                               "sigmas": [round(s, 9) for s in sigmas_of(config, steps, size)]})
    for grid, config, steps, size in (("sd3", "sd3", 10, None), ("flux", "flux", 6, (1024, 1024)),
                                      ("one", "sd3", 1, None), ("two", "flux", 2, (512, 512))):
        sigmas = sigmas_of(CONFIGS[config], steps, size)
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
    save_file(tensors, DATA / "flow.safetensors")
    (DATA / "flow.json").write_text(json.dumps({"configs": CONFIGS, "tables": tables, "cases": cases}) + "\n")
    print(len(tables), "tables,", len(cases), "trajectories")


if __name__ == "__main__":
    main()
