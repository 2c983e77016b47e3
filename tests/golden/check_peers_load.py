"""Adapter files that ringlet writes, loaded by the programs that they are for: is the picture the same?

    python check_peers_load.py RINGLET WORK [--only WORD] [--table FILE]

RINGLET is the program, WORK a folder for what is made on the way. For every case `ringlet train` makes an adapter of
the starter model (or of a tiny Stable Diffusion XL), numbers away from its start are added to all its tensors,
`ringlet convert` writes it for another program, and that program's own code loads the file into diffusers' pipeline.
Both sides then run 4 DDIM steps with guidance from the same noise in fp32 on the CPU. Compared are the latents, as
max |difference| / max |latent|; beside it stands the same number for ringlet with and without the adapter, which
shows what the comparison can see. Prints a Markdown table; the exit status is 1 where a difference is above 1e-4, an
adapter does less than 1e-2, or a file is not loaded. What a program cannot do is said below the table and checked,
too: that it stops with the error that is known, or does what ringlet does with a file that is changed accordingly.
Pinned: torch 2.15.0, diffusers 0.42.1, transformers 5.23.0, peft 0.21.2, lycoris-lora 4.1.3.

transformers 5 took the level `text_model` out of CLIPTextModel. kohya's and LyCORIS' names keep it, so LyCORIS is
given a module that has the text encoder under this name; diffusers does the like by itself. PEFT's names are those
of the model that the adapter is for: of one with the level in the starter model, without in the bare one. LyCORIS
finds Stable Diffusion XL's layers by the names of sd-scripts' U-Net, so it is given one that lists them so.
"""
import argparse
import collections
import dataclasses
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import diffusers
import peft
import torch
import transformers
from lycoris.kohya import LycorisNetworkKohya, create_network_from_weights
from lycoris.wrapper import LycorisNetwork, create_lycoris_from_weights
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import formula
import ldm

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PICTURES = ROOT / "examples" / "quickstart" / "robot"
TOLERANCE, LEAST_EFFECT = 1e-4, 1e-2
PROMPT, NEGATIVE, STEPS, GUIDANCE = "sks robot on green background", "red house", 4, 3.0
ATTENTION, ALL, TEXT = ["--targets", "attention"], ["--targets", "all"], ["--targets", "text-encoder"]
NARROW = ["--targets", "attention", "--exclude", "re:(blocks\\.1|mid_block|down_blocks\\.2|up_blocks\\.0)"]


# The programs that load


class TextModel(torch.nn.Module):
    """The text encoder under the name that transformers before version 5 gave it."""

    def __init__(self, encoder):
        super().__init__()
        self.text_model = encoder


class LdmUnet(torch.nn.Module):
    """The U-Net's layers under the names of the original code, which sd-scripts keeps for Stable Diffusion XL."""

    def __init__(self, unet):
        super().__init__()
        names = ldm.unet_names(unet.config)
        for name, module in unet.named_modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                self.add_module(ldm.rename(name + ".", names).rstrip(".").replace(".", "_"), module)


def text_encoder(pipe, component):
    encoder = getattr(pipe, component)
    return encoder if hasattr(encoder, "text_model") else TextModel(encoder)


def lycoris_parts(pipe):
    """The U-Net, and the text encoder or the list of the two, as LyCORIS wants them."""
    if hasattr(pipe, "text_encoder_2"):
        return LdmUnet(pipe.unet), [text_encoder(pipe, "text_encoder"), text_encoder(pipe, "text_encoder_2")]
    return pipe.unet, text_encoder(pipe, "text_encoder")


def check_loaded(found, path):
    layers = {key.split(".")[0] for key in load_file(path)}
    if found != len(layers):
        raise RuntimeError(f"{found} of {len(layers)} layers loaded")


def by_peft(pipe, path):
    """PeftModel puts its layers into the module that it is given, which stays in the pipeline."""
    folders = {"unet": path} if (path / "adapter_config.json").exists() else {
        folder.name: folder for folder in path.iterdir()}
    for component, folder in folders.items():
        level = any(".text_model." in key for key in load_file(folder / "adapter_model.safetensors"))
        module = text_encoder(pipe, component) if level else getattr(pipe, component)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            peft.PeftModel.from_pretrained(module, str(folder)).eval()
        for warning in caught:
            if "missing adapter keys" in str(warning.message):
                raise RuntimeError(str(warning.message))


def by_diffusers(pipe, path):
    pipe.load_lora_weights(str(path))


def lycoris_network(pipe, path):
    """LyCORIS' network for sd-scripts. Without the preset it first makes one for all layers, and fails: it finds the
    layers of the time embedding twice."""
    LycorisNetworkKohya.apply_preset(dict(unet_target_module=[], unet_target_name=[], text_encoder_target_module=[]))
    unet, text = lycoris_parts(pipe)
    network, weights = create_network_from_weights(1.0, str(path), None, text, unet, for_inference=True)
    check_loaded(len(network.unet_loras) + len(network.text_encoder_loras), path)
    return network.eval(), weights, text, unet


def by_lycoris(pipe, path):
    network, _, text, unet = lycoris_network(pipe, path)
    network.apply_to(text, unet, True, True)


def by_lycoris_merging(pipe, path):
    network, weights, text, unet = lycoris_network(pipe, path)
    network.merge_to(text, unet, weights, torch.float32, "cpu")


def by_lycoris_wrapper(pipe, path):
    """LyCORIS' network for any module; its prefix is set to the one of each part."""
    unet, text = lycoris_parts(pipe)
    parts = {"lora_unet": unet, "lora_te": text}
    if isinstance(text, list):
        parts = {"lora_unet": unet, "lora_te1": text[0], "lora_te2": text[1]}
    found = 0
    for prefix, module in parts.items():
        LycorisNetwork.apply_preset({"lora_prefix": prefix})
        network, _ = create_lycoris_from_weights(1.0, str(path), module)
        network.eval().apply_to()
        found += len(network.loras)
    check_loaded(found, path)


def by_lycoris_training(pipe, path):
    """A network as for training, made for the file's layers, which then reads the file."""
    tensors = load_file(path)
    names = [name for name, _ in pipe.unet.named_modules() if f"lora_unet_{name.replace('.', '_')}.weight" in tensors]
    on_input = next(value.item() for key, value in tensors.items() if key.endswith(".on_input"))
    LycorisNetworkKohya.apply_preset(dict(unet_target_module=[], unet_target_name=names))
    network = LycorisNetworkKohya(None, pipe.unet, network_module="ia3", train_on_input=bool(on_input))
    check_loaded(len(network.unet_loras), path)
    network.eval().apply_to(None, pipe.unet, False, True)
    network.load_weights(str(path))


COLUMNS = {  # the format and the ways to load it
    "PEFT": ("peft", [by_peft]),
    "diffusers": ("diffusers", [by_diffusers]),
    "kohya in diffusers": ("kohya", [by_diffusers]),
    "kohya in LyCORIS": ("kohya", [by_lycoris]),
    "LyCORIS": ("lycoris", [by_lycoris, by_lycoris_merging, by_lycoris_wrapper]),
}


# What they cannot do


@dataclasses.dataclass
class Limit:
    """The program stops with `error`, or does what ringlet does with the tensors that `same_as` makes."""
    why: str
    error: str = ""
    same_as: object = None  # (check, tensors) -> tensors


def without_magnitudes(_, tensors):
    return {key: value for key, value in tensors.items() if not key.endswith(".dora_scale")}


def text_magnitudes_of_the_base(check, tensors):
    base = load_file(check.model("starter") / "text_encoder" / "model.safetensors")
    ending = ".lora_magnitude_vector"

    def start(key):
        return base[key.removeprefix("text_encoder.").replace(ending, ".weight")].float().norm(dim=1)
    return {key: start(key) if key.startswith("text_encoder.") and key.endswith(ending) else value
            for key, value in tensors.items()}


def scale_twice(_, tensors):
    def alpha(layer, value):
        factors = [tensors[layer + factor] for factor in (".hada_w1_b", ".lokr_w2_b") if layer + factor in tensors]
        return value ** 2 / factors[0].shape[0]
    return {key: alpha(key.removesuffix(".alpha"), value) if key.endswith(".alpha") else value
            for key, value in tensors.items()}


def most_common_alpha(_, tensors):
    """Of the U-Net's layers, and of the text encoder's."""
    parts = {key: key[:len("lora_te")] for key in tensors if key.endswith(".alpha")}
    common = {}
    for part in set(parts.values()):
        alphas = [tensors[key].item() for key, its in parts.items() if its == part]
        common[part] = torch.tensor(collections.Counter(alphas).most_common()[0][0])
    return tensors | {key: common[part].clone() for key, part in parts.items()}


NO_DORA = {("kohya in diffusers", by_diffusers): Limit(
    "diffusers leaves DoRA's magnitudes out of kohya files, with a warning; compared with ringlet without them",
    same_as=without_magnitudes)}
ONE_ALPHA = {("kohya in diffusers", by_diffusers): Limit(
    "diffusers gives all attention layers of a kohya file the alpha that most have; compared with ringlet likewise",
    same_as=most_common_alpha)}
NO_TEXT_DORA = {("diffusers", by_diffusers): Limit(
    "under transformers 5 diffusers leaves DoRA's magnitudes of text encoders at their start, those of its own files "
    "too; compared with ringlet with these", same_as=text_magnitudes_of_the_base)}
MERGED_TWICE = {("LyCORIS", by_lycoris_merging): Limit(
    "LyCORIS' LoHa and LoKr count alpha / rank twice when it merges, once otherwise; compared with ringlet likewise",
    same_as=scale_twice)}
NO_IA3 = {("LyCORIS", way): Limit(
    "LyCORIS cannot make IA3 from a file (TypeError); loaded into a network as for training instead",
    error="positional arguments") for way in (by_lycoris, by_lycoris_merging, by_lycoris_wrapper)}
NO_BUTTERFLY = {("PEFT", by_peft): Limit(
    "PEFT without its CUDA extension makes BOFT with one factor whatever the file says", error="size mismatch")}


# Cases


@dataclasses.dataclass
class Case:
    name: str
    method: str
    targets: list
    columns: list
    noise: float = 0.05
    model: str = "starter"
    first: list = dataclasses.field(default_factory=list)  # a conversion before everything
    convert: list = dataclasses.field(default_factory=list)
    limits: dict = dataclasses.field(default_factory=dict)
    more: list = dataclasses.field(default_factory=list)  # other ways of LyCORIS


LORA = list(COLUMNS)
PEFT, LYCORIS, BOTH = ["PEFT"], ["LyCORIS"], ["PEFT", "LyCORIS"]
CASES = [
    Case("LoRA", "lora(rank=4)", ATTENTION + TEXT, LORA),
    Case("LoRA, alpha", "lora(rank=4,alpha=6)", ATTENTION + TEXT, LORA),
    Case("rsLoRA", "rslora(rank=4,alpha=3)", ATTENTION + TEXT, LORA),
    Case("LoRA, unequal ranks", "lora(rank=8)", ATTENTION + TEXT, LORA, first=["--as", "lora", "--max-error", "0.4"],
         limits=ONE_ALPHA),
    Case("LoRA, all layers", "lora(rank=4,alpha=2)", ALL + TEXT, LORA),
    Case("LoRA, Tucker", "lora(rank=4,tucker=yes)", ALL, ["PEFT", "diffusers", "LyCORIS"]),
    Case("PiSSA", "pissa(rank=4)", ATTENTION, LORA),
    Case("DoRA", "dora(rank=4)", ATTENTION + TEXT, LORA, limits=NO_DORA | NO_TEXT_DORA),
    Case("DoRA, all layers", "dora(rank=4,alpha=2)", ALL, LORA, limits=NO_DORA),
    Case("LoHa", "loha(rank=4,alpha=2)", ALL + TEXT, BOTH, limits=MERGED_TWICE),
    Case("LoKr", "lokr(rank=2,alpha=1)", ATTENTION + TEXT, BOTH, limits=MERGED_TWICE),
    Case("LoKr, all layers", "lokr(rank=4)", ALL, BOTH),
    Case("OFT, exact", "oft(block=8)", ATTENTION + TEXT, PEFT),
    Case("OFT, Neumann", "oft(block=8,cayley=neumann,transpose=yes)", ATTENTION, PEFT),
    Case("BOFT, 1 factor", "boft(block=4,factors=1)", ATTENTION, PEFT),
    Case("BOFT, 2 factors", "boft(block=4,factors=2)", ATTENTION, PEFT, limits=NO_BUTTERFLY),
    Case("HRA", "hra(rank=4)", ATTENTION + TEXT, PEFT),
    Case("HRA, all layers", "hra(rank=4,over=patches)", ALL, PEFT),
    Case("IA3, outputs", "diagonal(side=output,bias=yes)", ATTENTION, PEFT),
    Case("IA3, inputs", "diagonal", ATTENTION + TEXT, PEFT),
    Case("FourierFT", "fourierft(n=200)", ATTENTION + TEXT, PEFT),
    Case("VeRA", "vera(rank=16)", ATTENTION, PEFT, noise=0.3),
    Case("VeRA, text encoder", "vera(rank=16)", ATTENTION + TEXT, PEFT, noise=0.3),
    Case("GLoRA", "glora(rank=4)", ALL, LYCORIS),
    Case("IA3 without biases", "diagonal(side=output,form=offset)", ATTENTION, LYCORIS, limits=NO_IA3,
         more=[by_lycoris_training]),
    Case("IA3, inputs", "diagonal(form=offset)", ATTENTION, LYCORIS, limits=NO_IA3, more=[by_lycoris_training]),
    Case("Diag-OFT", "oft(block=8,side=output,form=matrix,transpose=yes)", ATTENTION + TEXT, LYCORIS),
    Case("BOFT, 3 factors", "boft(block=16,factors=3,side=output,pairs=interleaved,skew=full)", NARROW, LYCORIS),
    Case("differences", "diff", ALL + TEXT, LYCORIS),
    Case("tensor rings, as differences", "tlora", ATTENTION, ["kohya in LyCORIS", "LyCORIS"],
         convert=["--as", "diff"]),
    Case("SDXL: LoRA", "lora(rank=4,alpha=2)", ATTENTION + TEXT, LORA, model="sdxl"),
    Case("SDXL: LoRA, all layers", "lora(rank=4,alpha=2)", ALL + TEXT, LORA, model="sdxl"),
    Case("bare text encoder: LoRA", "lora(rank=4,alpha=2)", ATTENTION + TEXT, LORA, model="bare"),
    Case("bare text encoder: OFT", "oft(block=8)", ATTENTION + TEXT, PEFT, model="bare"),
]


# Running


class Check:
    def __init__(self, ringlet, work):
        self.ringlet, self.work = ringlet.resolve(), work
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        self.bases = {}

    def run(self, verb, *options):
        result = subprocess.run([str(self.ringlet), verb, *map(str, options), "--device", "cpu", "--threads", "1",
                                 "--quiet"], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"ringlet {verb}: {result.stderr.strip()}")

    def model(self, name):
        """The starter model; "bare", the same with a text encoder as transformers 5 saves new ones; the tiny SDXL."""
        folder = self.work / name
        if folder.exists():
            return folder
        if name == "sdxl":
            from make_pipeline import TINY, pipeline
            from transformers import CLIPTextModel
            del CLIPTextModel.text_model  # that script's stand-in, which loaders would take for the old layout
            pipeline(TINY[name])[0].save_pretrained(folder)
            rename_tensors(folder / "text_encoder" / "model.safetensors",
                           lambda key: "text_model." + key.removeprefix("text_model."))
        else:
            shutil.copytree(ROOT / "assets" / "starter", folder)
        if name == "bare":
            rename_tensors(folder / "text_encoder" / "model.safetensors", lambda key: key.removeprefix("text_model."))
        return folder

    def noise(self, model):
        path = self.work / f"noise-{model}.safetensors"
        if not path.exists():
            save_file({"latents": 1.7 * formula.uniform("noise", (1, 4, 16, 16))}, path)
        return path

    def ringlet_latents(self, model, adapter=None):
        out = self.work / "latents.safetensors"
        self.run("generate", "--model", self.model(model), "--prompt", PROMPT, "--negative-prompt", NEGATIVE,
                 "--steps", STEPS, "--sampler", "ddim", "--guidance", GUIDANCE, "--seed", 1, "--width", side(model),
                 "--height", side(model), "--latents", self.noise(model), "--output-type", "latent", "--out", out,
                 "--precision", "fp32", *(["--adapter", adapter] if adapter else []))
        return load_file(out)["latents"].clone()

    def pipe(self, model):
        kind = diffusers.StableDiffusionXLPipeline if model == "sdxl" else diffusers.StableDiffusionPipeline
        pipe = kind.from_pretrained(str(self.model(model)), dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def peer_latents(self, model, pipe):
        with torch.no_grad():
            return pipe(PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
                        latents=load_file(self.noise(model))["latents"], width=side(model), height=side(model),
                        output_type="latent").images

    def base(self, model):
        if model not in self.bases:
            self.bases[model] = self.ringlet_latents(model)
        return self.bases[model]

    def adapter(self, case, folder):
        """Trained for two steps, and then every tensor away from its start."""
        self.run("train", "--model", self.model(case.model), "--method", case.method, *case.targets,
                 "--instance-images", PICTURES, "--resolution", side(case.model), "--steps", 2, "--learning-rate",
                 1e-3, "--seed", 1, "--sample-images", 1, "--sample-steps", 1, "--precision", "fp32",
                 "--out", folder / "run")
        tensors, metadata = read(folder / "run" / "adapter.safetensors")
        for key, value in tensors.items():
            noise = formula.uniform(key, tuple(value.shape))
            if key.endswith((".m", ".scale")):  # lengths and factors
                value.mul_(1 + 0.1 * noise)
            value.add_(case.noise * noise)
        path = folder / "adapter.safetensors"
        save_file(tensors, path, metadata)
        return self.convert(case, path, "ringlet", folder / "first.safetensors", case.first) if case.first else path

    def convert(self, case, adapter, kind, path, options):
        self.run("convert", "--model", self.model(case.model), "--adapter", adapter, "--to", kind, "--out", path,
                 *options)
        return path

    def row(self, case, folder):
        folder.mkdir()
        adapter = self.adapter(case, folder)
        expected = self.ringlet_latents(case.model, adapter)
        row = Row(case, distance(self.base(case.model), expected))
        files = {}
        for column in case.columns:
            kind, ways = COLUMNS[column]
            for way in ways + (case.more if column == "LyCORIS" else []):
                try:
                    if kind not in files:
                        path = folder / (kind if kind == "peft" else kind + ".safetensors")
                        files[kind] = self.convert(case, adapter, kind, path, case.convert)
                    self.compare(row, column, way, files[kind], expected)
                except Exception as problem:  # one program's failure is one cell of the table
                    row.fail(column, f"{way.__name__}: {type(problem).__name__}: {problem}")
        return row

    def compare(self, row, column, way, path, expected):
        case, limit = row.case, row.case.limits.get((column, way))
        pipe = self.pipe(case.model)
        try:
            way(pipe, path)
        except Exception as problem:
            if limit is None or not limit.error or not re.search(limit.error, str(problem)):
                raise
            row.note(column, limit.why)
            return
        latents = self.peer_latents(case.model, pipe)
        difference = distance(expected, latents)
        if difference > TOLERANCE and limit is not None and limit.same_as:
            tensors, metadata = read(path)
            changed = path.with_name("changed.safetensors")
            save_file(limit.same_as(self, tensors), changed, metadata)
            difference = distance(self.ringlet_latents(case.model, changed), latents)
            row.note(column, limit.why)
        row.add(column, way, difference)


def side(model):
    return 32 if model == "sdxl" else 128


def read(path):
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key).clone() for key in file.keys()}, file.metadata()


def rename_tensors(path, rename):
    tensors, metadata = read(path)
    save_file({rename(key): value for key, value in tensors.items()}, path, metadata)


def distance(expected, other):
    return ((expected - other).abs().max() / expected.abs().max()).item()


# The table


class Row:
    """One adapter: for each column the largest difference of the ways to load it."""
    notes = []  # of all rows

    def __init__(self, case, effect):
        self.case, self.effect, self.cells, self.marks = case, effect, {}, {}
        self.good = effect >= LEAST_EFFECT

    def add(self, column, way, difference):
        if not difference <= TOLERANCE:  # NaN too
            self.fail(column, f"{way.__name__}: difference {difference:.1e}")
        self.cells[column] = max(difference, self.cells.get(column, 0.0))

    def note(self, column, why):
        if why not in self.notes:
            self.notes.append(why)
        self.marks.setdefault(column, set()).add(self.notes.index(why) + 1)

    def fail(self, column, why):
        self.good = False
        print(f"FAILED {self.case.name}, {column}: {' '.join(why.split())[:500]}", file=sys.stderr, flush=True)

    def cell(self, column):
        if column not in self.case.columns:
            return ""
        text = f"{self.cells[column]:.1e}" if column in self.cells else "—"
        return " ".join([text, *(f"({mark})" for mark in sorted(self.marks.get(column, [])))])

    def line(self):
        layers = " + ".join(word for word in self.case.targets[1::2] if not word.startswith("re:"))
        cells = [self.case.name, f"`{self.case.method}`", layers, f"{self.effect:.2f}", *map(self.cell, COLUMNS),
                 "pass" if self.good else "FAIL"]
        return f"| {' | '.join(cells)} |"


def quiet():
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ringlet", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--only", default="", help="cases whose name or method holds this word")
    parser.add_argument("--table", type=pathlib.Path, help="also write the table to this file")
    options = parser.parse_args()
    quiet()
    check = Check(options.ringlet, options.work)
    head = ["adapter", "method", "layers", "effect", *COLUMNS, "result"]
    lines, good = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"], True
    print("\n".join(lines), flush=True)
    for number, case in enumerate(CASES):
        if options.only in f"{case.name} {case.method}":
            row = check.row(case, check.work / f"{number:02}")
            lines.append(row.line())
            good &= row.good
            print(lines[-1], flush=True)
    good &= len(lines) > 2
    rest = [""] + [f"({number}) {note}." for number, note in enumerate(Row.notes, 1)]
    for model in check.bases:
        difference = distance(check.base(model), check.peer_latents(model, check.pipe(model)))
        good &= difference <= TOLERANCE
        rest.append(f"Without an adapter, {model}: {difference:.1e}.")
    print("\n".join(rest))
    if options.table:
        options.table.write_text("\n".join(lines + rest) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
