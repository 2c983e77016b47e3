"""Golden parameters after 100 steps of each optimiser.

    python make_optimizers.py     writes data/optimizers.json

AdamW is torch.optim.AdamW. Lion is algorithm 2 of Chen et al. 2023, "Symbolic Discovery of Optimization
Algorithms" (arXiv 2302.06675), line by line, the decay pulling towards `start` instead of zero where there is
one. All in fp64; values and gradients follow formula.py. Pinned: torch 2.15.0.
"""
import json
import pathlib

import torch

import formula

DATA = pathlib.Path(__file__).parent / "data"
STEPS = 100
SHAPES = {"w": (3, 5), "v": (7,)}


def uniform(name, shape):
    return formula.uniform(name, shape).double()


def rate(step):
    return 0.01 * (1 + step % 3)


def gradient(name, step):
    return uniform(f"{name}.gradient.{step}", SHAPES[name])


def adamw(betas, weight_decay):
    values = {name: uniform(name, shape).requires_grad_() for name, shape in SHAPES.items()}
    optimizer = torch.optim.AdamW(values.values(), betas=betas, weight_decay=weight_decay)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        for name, value in values.items():
            value.grad = gradient(name, step)
        optimizer.step()
    return values


def lion(betas, weight_decay, start):
    beta1, beta2 = betas
    values = {}
    for name, shape in SHAPES.items():
        theta, m = uniform(name, shape), torch.zeros(shape, dtype=torch.float64)
        origin = uniform(name + ".start", shape) if start else torch.zeros_like(theta)
        for step in range(STEPS):
            g = gradient(name, step)
            c = beta1 * m + (1 - beta1) * g
            theta = theta - rate(step) * (torch.sign(c) + weight_decay * (theta - origin))
            m = beta2 * m + (1 - beta2) * g
        values[name] = theta
    return values


def case(name, betas, weight_decay, start, values):
    return dict(optimizer=name, betas=betas, weight_decay=weight_decay, start=start,
                values={key: value.detach().flatten().tolist() for key, value in values.items()})


def main():
    cases = [case("adamw", betas, decay, False, adamw(betas, decay))
             for betas, decay in [((0.9, 0.999), 0.01), ((0.8, 0.95), 0.5)]]
    cases += [case("lion", betas, decay, start, lion(betas, decay, start))
              for betas, decay, start in [((0.9, 0.99), 0.0, False), ((0.9, 0.99), 0.3, False),
                                          ((0.95, 0.98), 0.3, True)]]
    (DATA / "optimizers.json").write_text(json.dumps(dict(steps=STEPS, cases=cases), indent=1) + "\n")


if __name__ == "__main__":
    main()
