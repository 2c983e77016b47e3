"""What a training step of diffusers + PEFT keeps for its backward pass: the peer's side of compare_saved.py.

    python peer_saved.py UNET_FOLDER [SIDE] [METHOD]

The step is that of peer_train.py; parameters, buffers and inputs are left out.
"""
import json
import sys

from peer_train import Step
from saved_tensors import count


def measure(folder, side=32, method="peft-lora"):
    step = Step(folder, side, method, checkpointing=False)
    step.loss().backward()  # warms up
    return dict(count(step, most=40), parameters=sum(p.numel() for p in step.parameters))


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:3]), *sys.argv[3:4])))
