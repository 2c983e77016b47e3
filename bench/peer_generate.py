"""Pictures with stable-diffusion.cpp, timed: the peer's side of compare_generate.py.

    python peer_generate.py MODEL_FOLDER [SIDE] [STEPS] [THREADS]
"""
import json
import sys
import time

from peer_unet import peak_mib


def measure(folder, side=512, steps=3, threads=2):
    from stable_diffusion_cpp import StableDiffusion

    begin = time.perf_counter()
    model = StableDiffusion(model_path=folder, n_threads=threads, wtype="f16", verbose=False)
    load_seconds = time.perf_counter() - begin
    ends = {}  # of the steps, by number: the callback is also called for other work
    begin = time.perf_counter()

    def progress(step, count, seconds):
        if count == steps:
            ends[step] = time.perf_counter()

    model.generate_image(prompt="a photo of a cat", width=side, height=side, sample_steps=steps, sample_method="euler",
                         cfg_scale=7.5, seed=1, progress_callback=progress)
    total = time.perf_counter() - begin
    return dict(load_seconds=load_seconds, seconds=[ends[step] - ends[step - 1] for step in range(2, steps + 1)], total=total,
                peak_mib=peak_mib())


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:]))))
