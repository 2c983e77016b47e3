"""Golden parameters after 100 steps of each optimiser.

    python make_optimizers.py     writes data/optimizers.json

AdamW and SGD are torch.optim's, and so is Muon, but that its products are computed in fp64 instead of bf16.
Lion is algorithm 2 of Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms" (arXiv 2302.06675), line
by line, the decay pulling towards `start` instead of zero where there is one. Adafactor is transformers',
schedule-free AdamW, Prodigy and CAME are their authors'. AdamW with 8-bit states is bitsandbytes', but that codes
are the nearest of its map, as its CUDA and default kernels find them: the CPU kernel looks them up in a coarse table.
All in fp64 but for the last, which is in fp32; values and gradients follow formula.py.

Pinned: torch 2.15.0, transformers 5.23.0, prodigyopt 1.1.2, schedulefree 1.4.1, came-pytorch 0.1.3,
bitsandbytes 0.50.2.
"""
import inspect
import json
import pathlib

import bitsandbytes
import bitsandbytes.backends.cpu.ops
import prodigyopt
import schedulefree
import torch
import torch.optim._muon
from came_pytorch import CAME
from transformers import Adafactor

import formula

DATA = pathlib.Path(__file__).parent / "data"
STEPS = 100
SHAPES = {"w": (3, 5), "v": (7,)}
MORE_SHAPES = {"w": (3, 5), "v": (7,), "k": (4, 3, 2, 2), "u": (6, 3)}
LARGE_SHAPES = {"w": (70, 64), "v": (7,)}
SHOWN = 40  # numbers of a large tensor


def uniform(name, shape):
    return formula.uniform(name, shape).double()


def rate(step):
    return 0.01 * (1 + step % 3)


def lion(betas, weight_decay, start):
    beta1, beta2 = betas
    values = {}
    for name, shape in SHAPES.items():
        theta, m = uniform(name, shape), torch.zeros(shape, dtype=torch.float64)
        origin = uniform(name + ".start", shape) if start else torch.zeros_like(theta)
        for step in range(STEPS):
            g = uniform(f"{name}.gradient.{step}", shape)
            c = beta1 * m + (1 - beta1) * g
            theta = theta - rate(step) * (torch.sign(c) + weight_decay * (theta - origin))
            m = beta2 * m + (1 - beta2) * g
        values[name] = theta
    return values


def trained(make, shapes=SHAPES, rates=rate, dtype=torch.float64):
    """The parameters after the steps of what make(values) returns: optimisers that step in turn."""
    values = {name: uniform(name, shape).to(dtype).requires_grad_() for name, shape in shapes.items()}
    optimizers = make(values)
    for step in range(STEPS):
        for name, value in values.items():
            value.grad = uniform(f"{name}.gradient.{step}", shapes[name]).to(dtype)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                if rates is not None:
                    group["lr"] = rates(step)
            optimizer.step()
    for optimizer in optimizers:
        if hasattr(optimizer, "eval"):
            optimizer.eval()
    return values


def torch_optimizer(kind, **options):
    return lambda values: [kind(list(values.values()), lr=1.0, **options)]


def schedule_free(**options):
    def make(values):
        optimizer = schedulefree.AdamWScheduleFree(list(values.values()), **options)
        optimizer.train()
        return [optimizer]

    return make


def adafactor(relative, **options):
    lr = None if relative else 1.0
    return lambda values: [Adafactor(list(values.values()), lr=lr, relative_step=relative, **options)]


def muon(betas, weight_decay, adjust, **options):
    """torch.optim.Muon for matrices, AdamW for the rest."""

    def make(values):
        matrices = [value for value in values.values() if value.ndim == 2]
        others = [value for value in values.values() if value.ndim != 2]
        return [torch.optim.Muon(matrices, lr=1.0, weight_decay=weight_decay, adjust_lr_fn=adjust, **options),
                torch.optim.AdamW(others, lr=1.0, betas=betas, weight_decay=weight_decay)]

    return make


def case(name, values, weight_decay, betas=None, options="", start=False, rates="", dtype="fp64"):
    shown = {key: value.detach().double().flatten() for key, value in values.items()}
    return dict(optimizer=name, betas=betas, weight_decay=weight_decay, options=options, start=start, rate=rates,
                type=dtype, shapes={key: list(value.shape) for key, value in values.items()},
                values={key: value[:SHOWN].tolist() for key, value in shown.items()},
                sums={key: value.abs().sum().item() for key, value in shown.items()})


def iterate_in_fp64():
    source = inspect.getsource(torch.optim._muon._zeropower_via_newtonschulz)
    assert "torch.bfloat16" in source
    exec(source.replace("torch.bfloat16", "torch.float64"), torch.optim._muon.__dict__)


def nearest_codes(numbers, code):
    """Codes and scales of blocks of 256."""
    blocks = torch.nn.functional.pad(numbers.flatten(), (0, -numbers.numel() % 256)).view(-1, 256)
    scales = blocks.abs().amax(-1)
    scaled = (blocks * (1.0 / scales.clamp(min=1e-38)).unsqueeze(-1)).clamp(-1, 1).flatten()[: numbers.numel()]
    return torch.bucketize(scaled, (code[:-1] + code[1:]) / 2).to(torch.uint8), scales


def encode_nearest():
    def quantise(numbers, code, scales_out, codes_out, blocksize):
        codes, scales = nearest_codes(numbers, code)
        codes_out.copy_(codes.view(codes_out.shape))
        scales_out.copy_(scales)

    assert hasattr(bitsandbytes.backends.cpu.ops, "_quant_blockwise_fp32_direct")
    bitsandbytes.backends.cpu.ops._quant_blockwise_fp32_direct = quantise


def main():
    iterate_in_fp64()
    encode_nearest()
    usual = (0.9, 0.999)
    cases = [case("adamw", trained(torch_optimizer(torch.optim.AdamW, betas=betas, weight_decay=decay)), decay, betas)
             for betas, decay in [(usual, 0.01), ((0.8, 0.95), 0.5)]]
    cases += [case("lion", lion(betas, decay, start), decay, betas, start=start)
              for betas, decay, start in [((0.9, 0.99), 0.0, False), ((0.9, 0.99), 0.3, False),
                                          ((0.95, 0.98), 0.3, True)]]
    sgd = torch.optim.SGD
    cases += [case("sgd", trained(torch_optimizer(sgd)), 0.0, options="momentum=0"),
              case("sgd", trained(torch_optimizer(sgd, momentum=0.9, weight_decay=0.2)), 0.2),
              case("sgd", trained(torch_optimizer(sgd, momentum=0.8, nesterov=True, weight_decay=0.1)), 0.1,
                   options="momentum=0.8,nesterov=yes")]
    cases += [case("adafactor", trained(adafactor(False, scale_parameter=False, weight_decay=0.1), MORE_SHAPES), 0.1),
              case("adafactor", trained(adafactor(False, beta1=0.9, decay_rate=-0.6, weight_decay=0.1), MORE_SHAPES),
                   0.1, options="scale_parameter=yes,beta1=0.9,decay_rate=-0.6"),
              case("adafactor", trained(adafactor(True), MORE_SHAPES, None), 0.0, options="relative_step=yes",
                   rates="one"),
              case("adafactor", trained(adafactor(True, warmup_init=True, weight_decay=0.5), MORE_SHAPES, None), 0.5,
                   options="relative_step=yes,warmup_init=yes", rates="one")]
    cases += [case("came", trained(torch_optimizer(CAME, weight_decay=decay), MORE_SHAPES), decay)
              for decay in (0.0, 0.2)]
    cases += [case("came", trained(torch_optimizer(CAME, betas=(0.8, 0.99, 0.95), weight_decay=0.1), MORE_SHAPES), 0.1,
                   betas=(0.8, 0.99), options="beta3=0.95")]
    prodigy = prodigyopt.Prodigy
    cases += [case("prodigy", trained(torch_optimizer(prodigy), rates=None), 0.0, rates="one"),
              case("prodigy", trained(torch_optimizer(prodigy, d_coef=2.0, weight_decay=0.1, beta3=0.9, growth_rate=1.5,
                                                      d0=1e-3, use_bias_correction=True, safeguard_warmup=True),
                                      rates=lambda step: 10.0 * rate(step)), 0.1, betas=usual,
                   options="d_coef=2,beta3=0.9,growth_rate=1.5,d0=1e-3,use_bias_correction=yes,safeguard_warmup=yes",
                   rates="ten"),
              case("prodigy", trained(torch_optimizer(prodigy, slice_p=3, d_coef=0.5), rates=None), 0.0,
                   options="slice_p=3,d_coef=0.5", rates="one")]
    cases += [case("schedule-free", trained(schedule_free(betas=betas, weight_decay=decay, r=r)), decay, betas,
                   options=options)
              for betas, decay, r, options in [(usual, 0.0, 0.0, ""), ((0.95, 0.99), 0.2, 1.5, "r=1.5")]]
    cases += [case("muon", trained(muon((0.9, 0.99), 0.1, "match_rms_adamw"), MORE_SHAPES), 0.1, (0.9, 0.99)),
              case("muon", trained(muon(usual, 0.0, "original", momentum=0.8, nesterov=False, ns_steps=3), MORE_SHAPES),
                   0.0, usual, options="match_adamw=no,momentum=0.8,nesterov=no,ns_steps=3")]
    adamw8bit = bitsandbytes.optim.AdamW8bit
    cases += [case("adamw8bit", trained(torch_optimizer(adamw8bit, betas=betas, weight_decay=decay), LARGE_SHAPES,
                                        dtype=torch.float32), decay, betas, dtype="fp32")
              for betas, decay in [(usual, 0.01), ((0.8, 0.95), 0.0)]]
    signed, unsigned = (bitsandbytes.functional.create_dynamic_map(signed=sign).tolist() for sign in (True, False))
    numbers = formula.uniform("numbers", (600,)) ** 3
    codes, scales = nearest_codes(numbers, bitsandbytes.functional.create_dynamic_map())
    quantised = dict(signed=signed, unsigned=unsigned, codes=codes.tolist(), scales=scales.tolist())
    (DATA / "optimizers.json").write_text(json.dumps(dict(steps=STEPS, cases=cases, quantised=quantised)) + "\n")


if __name__ == "__main__":
    main()
