"""One forward pass of a U-Net in diffusers, timed: the peer's side of compare.py.

    python peer_unet.py UNET_FOLDER [SIDE] [BATCH] [REPEATS]
    python peer_unet.py --make UNET_FOLDER       writes a random U-Net of Stable Diffusion 1.5's size
"""
import json
import os
import sys
import time

SD15 = dict(sample_size=64, in_channels=4, out_channels=4, layers_per_block=2,
            block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3)


def peak_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM:"))


def make(folder):
    import torch
    from diffusers import UNet2DConditionModel

    if not os.path.exists(os.path.join(folder, "config.json")):
        torch.manual_seed(0)
        UNet2DConditionModel(**SD15).save_pretrained(folder, max_shard_size="20GB")


def measure(folder, side=64, batch=2, repeats=3):
    import torch
    from diffusers import UNet2DConditionModel

    begin = time.perf_counter()
    unet = UNet2DConditionModel.from_pretrained(folder).eval()
    load_seconds = time.perf_counter() - begin
    latents = torch.randn(batch, 4, side, side)
    text = torch.randn(batch, 77, unet.config.cross_attention_dim)
    timesteps = torch.full((batch,), 500)
    seconds = []
    with torch.no_grad():
        unet(latents, timesteps, encoder_hidden_states=text)
        for _ in range(repeats):
            begin = time.perf_counter()
            unet(latents, timesteps, encoder_hidden_states=text)
            seconds.append(time.perf_counter() - begin)
    return dict(load_seconds=load_seconds, seconds=seconds, peak_mib=peak_mib())


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make(sys.argv[2])
    else:
        print(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:]))))
