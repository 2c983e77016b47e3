"""What a training step of diffusers + PEFT keeps for its backward pass: the peer's side of compare_saved.py.

    python peer_saved.py UNET_FOLDER [SIDE] [METHOD]

The step is that of peer_train.py. Each storage that torch.autograd.graph.saved_tensors_hooks shows is
counted once; parameters, buffers and inputs, which are there before the pass, are left out.
"""
import collections
import json
import sys

from peer_train import Step


def measure(folder, side=32, method="peft-lora"):
    import torch

    step = Step(folder, side, method, checkpointing=False)
    step.loss().backward()  # warms up
    known = {tensor.untyped_storage().data_ptr() for tensor in step.tensors()}
    saved, shapes = {}, collections.Counter()

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known | saved.keys():
            saved[storage.data_ptr()] = storage  # kept, so that no other takes its place
            shapes[str(list(tensor.shape))] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step.loss()
    return dict(saved_bytes=sum(storage.nbytes() for storage in saved.values()), shapes=dict(shapes.most_common(40)),
                parameters=sum(p.numel() for p in step.parameters))


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:3]), *sys.argv[3:4])))
