"""Real adapter files in the programs that they were made for, and in ringlet: are the merged weights the same?

    python check_real_files.py RINGLET FILES WORK [--only WORD] [--cloneofsimo FOLDER] [--table FILE]

RINGLET is the program, FILES the folder that scripts/fetch-real.sh fills, WORK a folder for what is made on the way
(up to 8 GB). For every file a network of the size that it is for gets random fp32 weights; its layers are written to
one .safetensors file, `ringlet merge` merges the adapter into that file, and the program itself loads the adapter
into its own network and says what it adds to each weight. Compared are W0 + that with what ringlet wrote, as
max |difference| / max |change|, over all layers. Prints a Markdown table; the exit status is 1 where a difference is
above 1e-5 or a layer is missing. cloneofsimo's program is in no package registry: FOLDER is a checkout of
github.com/cloneofsimo/lora, without which its files are left out, with a note.
Pinned: torch 2.15.0, diffusers 0.42.1, transformers 5.23.0, peft 0.21.2, lycoris-lora 4.1.3.

diffusers and transformers have changed the order in which their blocks list their layers since 2022; cloneofsimo's
program counts layers in that order, so the network is given the old one.
"""
import argparse
import importlib.util
import os
import pathlib
import subprocess
import sys
import types
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import diffusers
import peft
import torch
import transformers
from diffusers.utils import convert_unet_state_dict_to_peft
from lycoris.functional import lokr
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-5
DOWN = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
UP = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3


class SharedNumbers:
    """Random weights for any network in the memory of its largest one."""

    def __init__(self):
        self.numbers = torch.randn(60_000_000, generator=torch.Generator().manual_seed(1)) * 0.05

    def fill(self, module):
        for index, (name, parameter) in enumerate(list(module.named_parameters())):
            parent, _, last = name.rpartition(".")
            begin, count = index % 1000, parameter.numel()
            values = self.numbers[begin:begin + count].view(parameter.shape)
            module.get_submodule(parent)._parameters[last] = torch.nn.Parameter(values, requires_grad=False)
        return module.eval()


NUMBERS = SharedNumbers()


def made(build):
    with torch.device("meta"):
        module = build()
    return NUMBERS.fill(module)


class TextModel(torch.nn.Module):
    """The text encoder under the name that transformers before version 5 gave it."""

    def __init__(self, encoder):
        super().__init__()
        self.text_model = encoder


def networks(version):
    """The U-Net and the text encoder of Stable Diffusion 1.5 or 2.1."""
    two = version == 2
    unet = made(lambda: diffusers.UNet2DConditionModel(
        sample_size=64, cross_attention_dim=1024 if two else 768, attention_head_dim=[5, 10, 20, 20] if two else 8,
        use_linear_projection=two, down_block_types=DOWN, up_block_types=UP))
    width = 1024 if two else 768
    text = made(lambda: transformers.CLIPTextModel(transformers.CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=23 if two else 12,
        num_attention_heads=width // 64)))
    return {"unet": unet, "text_encoder": text if hasattr(text, "text_model") else TextModel(text)}


def weights(parts):
    return {f"{component}.{name}": module.weight for component, part in parts.items()
            for name, module in part.named_modules() if getattr(module, "weight", None) is not None}


def in_old_order(parts):
    """BasicTransformerBlock of 2022 had its feed-forward before the second attention."""
    for module in parts["unet"].modules():
        if type(module).__name__ == "BasicTransformerBlock":
            module._modules["attn2"] = module._modules.pop("attn2")
    return parts


# What each program adds to the weights: (name, change) one after the other


def by_diffusers(parts, path, _):
    unet, state = parts["unet"], load_file(path)
    if any(key.startswith("unet.") for key in state):
        state, alphas, *_ = diffusers.StableDiffusionPipeline.lora_state_dict(str(path), return_lora_metadata=True)
        diffusers.StableDiffusionPipeline.load_lora_into_unet(state, alphas, unet, adapter_name="real")
    else:
        unet.load_lora_adapter(convert_unet_state_dict_to_peft(state), prefix=None, adapter_name="real")
    for name, module in unet.named_modules():
        if hasattr(module, "get_delta_weight"):
            yield f"unet.{name}", module.get_delta_weight("real")


def by_lycoris(parts, path, _):
    """The files are of LyCORIS's first months. Today's loader makes factors of other sizes than theirs and stops, so
    the file's own factors go through LyCORIS's product."""
    names = {f"{prefix}_{name.replace('.', '_')}": f"{component}.{name}"
             for prefix, component in (("lora_unet", "unet"), ("lora_te", "text_encoder"))
             for name, _ in parts[component].named_modules()}
    layers = {}
    for key, tensor in load_file(path).items():
        layer, _, what = key.partition(".")
        layers.setdefault(layer, {})[what] = tensor.float()
    for layer, tensors in layers.items():
        factors = [tensors.pop(f"lokr_{what}", None) for what in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")]
        alpha = tensors.pop("alpha").item()
        if tensors:
            raise RuntimeError(f"{layer} has {list(tensors)}")
        yield names[layer], lokr.diff_weight(*factors, gamma=alpha, backend="torch")


def by_cloneofsimo(parts, path, folder):
    package = types.ModuleType("lora_diffusion")
    package.__path__ = [str(folder / "lora_diffusion")]
    sys.modules["lora_diffusion"] = package
    spec = importlib.util.spec_from_file_location("lora_diffusion.lora", folder / "lora_diffusion" / "lora.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    in_old_order(parts)
    with safe_open(path, "pt") as file:
        for component, (factors, ranks, target) in program.parse_safeloras(file).items():
            part = parts[component]
            program.monkeypatch_or_replace_lora_extended(part, factors, target, ranks)
            for name, module in part.named_modules():
                if type(module).__name__ == "LoraInjectedLinear":
                    yield f"{component}.{name}", module.scale * module.lora_up.weight @ module.lora_down.weight


def by_peft(parts, path, _):
    model = peft.PeftModel.from_pretrained(parts["gpt2"], str(path))
    for name, module in model.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight"):
            yield f"gpt2.{name}", module.get_delta_weight("default")


CASES = [("cloneofsimo_analog_svd_rank4.safetensors", 1, by_cloneofsimo),
         ("cloneofsimo_lora_disney.safetensors", 1, by_cloneofsimo),
         ("cloneofsimo_lora_disney_inpainting.safetensors", 1, by_cloneofsimo),
         ("catundchat_sd15_r4.safetensors", 1, by_diffusers),
         ("diffusers_sd21base_whale_r4.safetensors", 2, by_diffusers),
         ("lycoris_smart_falcon_4_lokr.safetensors", 1, by_lycoris),
         ("lycoris_smart_falcon_8_lokr.safetensors", 1, by_lycoris),
         ("lycoris_smart_falcon_16_lokr.safetensors", 1, by_lycoris),
         ("peft_gpt2_shibbir24", "gpt2", by_peft)]


def in_file(name, of_gpt2):
    """What the base file calls a weight: GPT-2 as it is published, without "transformer."."""
    return name.removeprefix("gpt2.transformer.") if of_gpt2 else name


def is_needed(name, program):
    """LoRA files of Stable Diffusion change attention only, so that a part of its weights will do."""
    if program in (by_lycoris, by_peft):
        return not name.endswith("lm_head")
    return any(word in name for word in (".attn1.", ".attn2.", ".ff.net.0.proj", ".self_attn.", "unet.conv_in",
                                         "unet.time_embedding"))


def compare(ringlet, path, kind, program, work, cloneofsimo):
    of_gpt2 = kind == "gpt2"
    parts = {"gpt2": made(lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config()))} if of_gpt2 else networks(kind)
    before = weights(parts)
    base, out = work / "base.safetensors", work / "merged.safetensors"
    save_file({in_file(f"{name}.weight", of_gpt2): tensor.detach().clone() for name, tensor in before.items()
               if is_needed(name, program)}, base)
    subprocess.run([ringlet, "merge", "--model", base, "--adapter", path, "--out", out, "--quiet"], check=True,
                   stdout=subprocess.DEVNULL)
    layers, worst, changed = 0, 0.0, set()
    with safe_open(out, "pt") as merged, torch.no_grad():
        for name, change in program(parts, path, cloneofsimo):
            expected = before[name] + change.view(before[name].shape)
            difference = (merged.get_tensor(in_file(f"{name}.weight", of_gpt2)) - expected).abs().max()
            worst = max(worst, (difference / change.abs().max().clamp_min(1e-30)).item())
            changed.add(in_file(f"{name}.weight", of_gpt2))
            layers += 1
        with safe_open(base, "pt") as original:
            others = [name for name in merged.keys() if name not in changed and
                      not torch.equal(merged.get_tensor(name), original.get_tensor(name))]
    base.unlink()
    out.unlink()
    if others:
        raise RuntimeError(f"{len(others)} layers are changed by ringlet alone, such as {others[0]}")
    return layers, worst


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ringlet", type=pathlib.Path)
    parser.add_argument("files", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--cloneofsimo", type=pathlib.Path)
    parser.add_argument("--table", type=pathlib.Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    lines = ["| file | program | layers | largest difference |", "|---|---|---|---|"]
    good = True
    for name, kind, program in CASES:
        path = options.files / name
        if options.only not in name:
            continue
        label = program.__name__.removeprefix("by_")
        if not path.exists() or (program is by_cloneofsimo and options.cloneofsimo is None):
            print(f"{name}: left out, {'the file' if not path.exists() else 'the program'} is not here", flush=True)
            continue
        layers, worst = compare(options.ringlet, path, kind, program, options.work, options.cloneofsimo)
        good = good and layers > 0 and worst <= TOLERANCE
        lines.append(f"| {name} | {label} | {layers} | {worst:.1e} |")
        print(lines[-1], flush=True)
    if options.table:
        options.table.write_text("\n".join(lines) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
