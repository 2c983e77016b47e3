"""Counts what a pass of the peers keeps for its backward pass: what peer_saved.py and peer_blocks.py share."""
import collections


def count(step, most):
    """Each storage that torch.autograd.graph.saved_tensors_hooks shows in step.loss() counts once; what
    step.tensors() has, which is there before the pass, is left out. `most`: how many shapes are named."""
    import torch

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
    return dict(saved_bytes=sum(storage.nbytes() for storage in saved.values()), shapes=dict(shapes.most_common(most)))
