"""Training steps of an adapter with diffusers and PEFT or LyCORIS, timed: the peers' side of
compare_train.py and compare_methods.py.

    python peer_train.py UNET_FOLDER [SIDE] [STEPS] [METHOD] [checkpointing]

METHOD is a key of PEERS, "peft-lora" unless given. RINGLET_BENCH_DEVICE (cpu), RINGLET_BENCH_PRECISION
(fp32, or bf16 and fp16 for the frozen weights and, by autocast, the computation) and RINGLET_BENCH_BATCH (1)
say where, in what, and how many pictures.
"""
import json
import logging
import os
import sys
import time

from peer_unet import peak_mib

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
PEERS = {
    "peft-lora": ("LoraConfig", dict(r=4, lora_alpha=4)),
    "peft-dora": ("LoraConfig", dict(r=4, lora_alpha=4, use_dora=True)),
    "peft-oft": ("OFTConfig", dict(oft_block_size=32, use_cayley_neumann=False)),
    "peft-coft": ("OFTConfig", dict(oft_block_size=32, use_cayley_neumann=False, coft=True)),
    "peft-boft": ("BOFTConfig", dict(boft_block_size=4, boft_n_butterfly_factor=2)),  # runs with 1 on a CPU
    "peft-hra": ("HRAConfig", dict(r=8)),
    "peft-ia3": ("IA3Config", dict(feedforward_modules=TARGETS)),
    "peft-loha": ("LoHaConfig", dict(r=4, alpha=4)),
    "peft-lokr": ("LoKrConfig", dict(r=4, alpha=4)),
    "peft-fourierft": ("FourierFTConfig", dict(n_frequency=1000)),
    "peft-vera": ("VeraConfig", dict(r=256)),
    "lycoris-locon": ("locon", dict(linear_dim=4, linear_alpha=4)),
    "lycoris-loha": ("loha", dict(linear_dim=4, linear_alpha=4)),
    "lycoris-lokr": ("lokr", dict(linear_dim=4, linear_alpha=4)),
    "lycoris-glora": ("glora", dict(linear_dim=4, linear_alpha=4)),
    "lycoris-ia3": ("ia3", dict(linear_dim=4, linear_alpha=4)),
    "lycoris-oft": ("diag-oft", dict(linear_dim=32, linear_alpha=0)),
    "lycoris-boft": ("boft", dict(linear_dim=10, linear_alpha=0)),
}


def adapt(unet, method):
    """Puts the adapter into the network; returns what is trained."""
    kind, options = PEERS[method]
    if method.startswith("peft-"):
        import peft
        peft.get_peft_model(unet, getattr(peft, kind)(target_modules=TARGETS, **options))
        return [p for p in unet.parameters() if p.requires_grad]
    from lycoris import LycorisNetwork, create_lycoris
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)  # it writes to stdout, where the JSON goes
    LycorisNetwork.apply_preset(
        {"target_name": [f"*.{name}" for name in TARGETS], "use_fnmatch": True, "target_module": []})
    network = create_lycoris(unet, 1.0, algo=kind, **options)
    network.apply_to()
    unet.lycoris = network  # trained, and kept alive, with the network
    return list(network.parameters())


class Step:
    """The network, what is trained, and the loss of a training step."""

    def __init__(self, folder, side, method, checkpointing):
        import torch
        from diffusers import DDPMScheduler, UNet2DConditionModel

        self.device = os.environ.get("RINGLET_BENCH_DEVICE", "cpu")
        self.kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
            os.environ.get("RINGLET_BENCH_PRECISION", "fp32")]
        self.unet = UNet2DConditionModel.from_pretrained(folder).to(self.device, self.kind)
        self.unet.requires_grad_(False)
        self.parameters = adapt(self.unet, method)
        for parameter in self.parameters:
            parameter.data = parameter.data.float()
        self.unet.train()
        if checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        batch = int(os.environ.get("RINGLET_BENCH_BATCH", "1"))
        self.latents = torch.randn(batch, 4, side, side).to(self.device)
        self.text = torch.randn(batch, 77, self.unet.config.cross_attention_dim).to(self.device, self.kind)
        self.timesteps = torch.full((batch,), 500, device=self.device)

    def loss(self):
        import torch

        noise = torch.randn_like(self.latents)
        noisy = self.scheduler.add_noise(self.latents, noise, self.timesteps)
        with torch.autocast(self.device.split(":")[0], self.kind, enabled=self.kind != torch.float32):
            said = self.unet(noisy, self.timesteps, self.text).sample
        return torch.nn.functional.mse_loss(said.float(), noise)

    def tensors(self):
        """What is there before a step: parameters, buffers and inputs."""
        return [*self.parameters, *self.unet.parameters(), *self.unet.buffers(), self.latents, self.text,
                self.timesteps]


def measure(folder, side=64, steps=3, method="peft-lora", checkpointing=False):
    import torch

    step = Step(folder, side, method, checkpointing)
    optimizer = torch.optim.AdamW(step.parameters, lr=1e-4)
    scaler = torch.amp.GradScaler(step.device.split(":")[0], enabled=step.kind == torch.float16)
    seconds = []
    for _ in range(steps + 1):
        begin = time.perf_counter()
        scaler.scale(step.loss()).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(step.parameters, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if step.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    peak = peak_mib() if step.device == "cpu" else torch.cuda.max_memory_reserved() >> 20
    return dict(seconds=seconds[1:], parameters=sum(p.numel() for p in step.parameters), peak_mib=peak)


if __name__ == "__main__":
    words = sys.argv[1:]
    checkpointing = words[-1] == "checkpointing"
    if checkpointing:
        words.pop()
    numbers = [int(word) for word in words[1:3]]
    print(json.dumps(measure(words[0], *numbers, *words[3:4], checkpointing=checkpointing)))
