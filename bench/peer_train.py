"""Training steps of a LoRA with diffusers and PEFT, timed: the peer's side of compare_train.py.

    python peer_train.py UNET_FOLDER [SIDE] [STEPS] [checkpointing]
"""
import json
import sys
import time

from peer_unet import peak_mib


def measure(folder, side=64, steps=3, checkpointing=False):
    import torch
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from peft import LoraConfig

    unet = UNet2DConditionModel.from_pretrained(folder)
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    unet.train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    latents, text = torch.randn(1, 4, side, side), torch.randn(1, 77, unet.config.cross_attention_dim)
    timesteps = torch.tensor([500])
    seconds = []
    for _ in range(steps + 1):
        begin = time.perf_counter()
        noise = torch.randn_like(latents)
        said = unet(scheduler.add_noise(latents, noise, timesteps), timesteps, text).sample
        torch.nn.functional.mse_loss(said, noise).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begin)
    return dict(seconds=seconds[1:], parameters=sum(p.numel() for p in parameters), peak_mib=peak_mib())


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:4]]
    print(json.dumps(measure(sys.argv[1], *numbers, checkpointing=len(sys.argv) > 4)))
