"""Training passes of one block of a diffusion transformer with diffusers and PEFT: the peer's side of
compare_blocks.py.

    python peer_blocks.py BLOCK FILE TOKENS STEPS METHOD
    python peer_blocks.py --make BLOCK FILE       writes random weights of real width

What BLOCK, TOKENS, STEPS and the numbers are says transformer_block.cpp; METHOD is a key of PEERS of
peer_train.py. Saved tensors are counted by saved_tensors.py.
"""
import json
import os
import sys
import time

from peer_train import PEERS
from peer_unet import peak_mib
from saved_tensors import count

TARGETS = r".*\.?(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out|net\.0\.proj|net\.2|proj_mlp|proj_out)"
FEW = 64  # tokens of the pass that warms up


def make_block(kind):
    from diffusers.models.attention import JointTransformerBlock
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock, FluxTransformerBlock

    if kind == "flux-double":
        return FluxTransformerBlock(3072, 24, 128), 3072, 512
    if kind == "flux-single":
        return FluxSingleTransformerBlock(3072, 24, 128), 3072, 512
    return JointTransformerBlock(1536, 24, 64, qk_norm="rms_norm", use_dual_attention=True), 1536, 333


def write(kind, file):
    import torch
    from safetensors.torch import save_file

    if os.path.exists(file):
        return
    torch.manual_seed(0)
    save_file({f"block.{name}": tensor for name, tensor in make_block(kind)[0].state_dict().items()}, file)


class Step:
    """The block, what is trained, and the loss of a pass."""

    def __init__(self, kind, file, method):
        import peft
        from safetensors.torch import load_file

        self.kind = kind
        self.block, self.width, self.text_tokens = make_block(kind)
        weights = load_file(file)
        self.block.load_state_dict({name.removeprefix("block."): tensor for name, tensor in weights.items()})
        self.block.requires_grad_(False).train()
        config, options = PEERS[method]
        self.adapted = peft.inject_adapter_in_model(getattr(peft, config)(target_modules=TARGETS, **options), self.block)
        self.parameters = [p for p in self.block.parameters() if p.requires_grad]

    def set_tokens(self, tokens):
        import torch
        from diffusers.models.transformers.transformer_flux import FluxPosEmbed

        torch.manual_seed(1)
        self.picture = torch.randn(1, tokens, self.width).requires_grad_()
        self.text = torch.randn(1, self.text_tokens, self.width).requires_grad_()
        self.time = torch.randn(1, self.width)
        self.cotangents = torch.randn(1, tokens, self.width), torch.randn(1, self.text_tokens, self.width)
        self.rotations = None
        if self.kind.startswith("flux"):
            places = torch.arange(self.text_tokens + tokens).float()
            self.rotations = FluxPosEmbed(10000, (16, 56, 56))(torch.stack([places] * 3, 1))

    def loss(self):
        picture, text = self.picture * 1.0, self.text * 1.0
        more = dict(image_rotary_emb=self.rotations) if self.rotations else {}
        text, picture = self.adapted(hidden_states=picture, encoder_hidden_states=text, temb=self.time, **more)
        return (picture * self.cotangents[0]).sum() + (text * self.cotangents[1]).sum()

    def tensors(self):
        """What is there before a pass."""
        return [*self.block.parameters(), *self.block.buffers(), self.picture, self.text, self.time, *self.cotangents,
                *(self.rotations or ())]


def measure(kind, file, tokens, steps, method):
    step = Step(kind, file, method)
    step.set_tokens(FEW)
    step.loss().backward()
    step.set_tokens(tokens)
    seconds, forward, norm = [], [], 0.0
    for _ in range(steps):
        step.picture.grad = step.text.grad = None
        begin = time.process_time()
        loss = step.loss()
        forward.append(time.process_time() - begin)
        loss.backward()
        seconds.append(time.process_time() - begin)
        norm = step.picture.grad.norm().item()
    del step.picture.grad, step.text.grad
    return dict(count(step, most=20), seconds=seconds, forward_seconds=forward, norm=norm,
                parameters=sum(p.numel() for p in step.parameters), peak_mib=peak_mib())


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        write(*sys.argv[2:])
    else:
        kind, file, tokens, steps, method = sys.argv[1:]
        print(json.dumps(measure(kind, file, int(tokens), int(steps), method)))
