"""The layout of the authors' checkpoints of Stable Diffusion 3 and FLUX, as diffusers 0.42.1 reads it.

    python make_original_layout.py     writes data/original_layout.json

For the tiny models of make_flow_pipelines.py: the names and shapes of the original tensors, and for each tensor of
diffusers' network the original one and its rows. Tensors with a number for every row go through diffusers' converters
of checkpoints, which say where each row goes.
"""
import inspect
import json
import pathlib

import torch
from diffusers.loaders import single_file_utils as single

from make_flow_pipelines import MODELS, is_flux, transformer_of

OUT = pathlib.Path(__file__).parent / "data" / "original_layout.json"


def qkv(at, names=("to_q", "to_k", "to_v")):
    return [f"{at}.{name}" for name in names]


def original_layers(key, state):
    """{original layer: the network's layers that it is made of, in the order of their rows}."""
    added = ("add_q_proj", "add_k_proj", "add_v_proj")
    layers = {}
    blocks = {int(name.split(".")[1]) for name in state if name.startswith("transformer_blocks.")}
    for i in sorted(blocks):
        t = f"transformer_blocks.{i}."
        if is_flux(key):
            d = f"double_blocks.{i}."
            for theirs, norm, ff, parts, proj, suffix in (("img", "norm1", "ff", qkv(t + "attn"), "to_out.0", ""),
                                                          ("txt", "norm1_context", "ff_context", qkv(t + "attn", added),
                                                           "to_add_out", "added_")):
                layers |= {f"{d}{theirs}_mod.lin": [f"{t}{norm}.linear"], f"{d}{theirs}_attn.qkv": parts,
                           f"{d}{theirs}_attn.proj": [f"{t}attn.{proj}"], f"{d}{theirs}_mlp.0": [f"{t}{ff}.net.0.proj"],
                           f"{d}{theirs}_mlp.2": [f"{t}{ff}.net.2"],
                           f"{d}{theirs}_attn.norm.query_norm": [f"{t}attn.norm_{suffix}q"],
                           f"{d}{theirs}_attn.norm.key_norm": [f"{t}attn.norm_{suffix}k"]}
        else:
            for theirs, norm, ff, attn, parts, proj, suffix in (
                    ("x_block", "norm1", "ff", "attn", qkv(t + "attn"), "to_out.0", ""),
                    ("x_block", "norm1", "ff", "attn2", qkv(t + "attn2"), "to_out.0", ""),
                    ("context_block", "norm1_context", "ff_context", "attn", qkv(t + "attn", added), "to_add_out",
                     "added_")):
                j = f"joint_blocks.{i}.{theirs}."
                layers |= {f"{j}adaLN_modulation.1": [f"{t}{norm}.linear"], f"{j}{attn}.qkv": parts,
                           f"{j}{attn}.proj": [f"{t}{attn}.{proj}"], f"{j}mlp.fc1": [f"{t}{ff}.net.0.proj"],
                           f"{j}mlp.fc2": [f"{t}{ff}.net.2"], f"{j}{attn}.ln_q": [f"{t}{attn}.norm_{suffix}q"],
                           f"{j}{attn}.ln_k": [f"{t}{attn}.norm_{suffix}k"]}
    singles = {int(name.split(".")[1]) for name in state if name.startswith("single_transformer_blocks.")}
    for i in sorted(singles):
        s, t = f"single_blocks.{i}.", f"single_transformer_blocks.{i}."
        layers |= {s + "modulation.lin": [t + "norm.linear"], s + "linear1": qkv(t + "attn") + [t + "proj_mlp"],
                   s + "linear2": [t + "proj_out"], s + "norm.query_norm": [t + "attn.norm_q"],
                   s + "norm.key_norm": [t + "attn.norm_k"]}
    time = "time_text_embed."
    if is_flux(key):
        layers |= {"img_in": ["x_embedder"], "txt_in": ["context_embedder"]}
        for theirs, ours in (("time", "timestep"), ("vector", "text"), ("guidance", "guidance")):
            layers |= {f"{theirs}_in.in_layer": [f"{time}{ours}_embedder.linear_1"],
                       f"{theirs}_in.out_layer": [f"{time}{ours}_embedder.linear_2"]}
    else:
        layers |= {"x_embedder.proj": ["pos_embed.proj"], "context_embedder": ["context_embedder"]}
        for theirs, ours in (("t", "timestep"), ("y", "text")):
            layers |= {f"{theirs}_embedder.mlp.0": [f"{time}{ours}_embedder.linear_1"],
                       f"{theirs}_embedder.mlp.2": [f"{time}{ours}_embedder.linear_2"]}
    layers |= {"final_layer.adaLN_modulation.1": ["norm_out.linear"], "final_layer.linear": ["proj_out"]}
    return {name: parts for name, parts in layers.items() if parts[0] + ".weight" in state}


def original_shapes(key, state):
    shapes = {} if is_flux(key) else {"pos_embed": list(state["pos_embed.pos_embed"].shape)}
    for name, parts in original_layers(key, state).items():
        for kind in ("weight", "bias"):
            if f"{parts[0]}.{kind}" not in state:
                continue
            of_parts = [state[f"{part}.{kind}"].shape for part in parts]
            ending = "scale" if is_flux(key) and "_norm" in name.rsplit(".", 1)[-1] else kind
            shapes[f"{name}.{ending}"] = [sum(shape[0] for shape in of_parts), *of_parts[0][1:]]
    return shapes


def converter(key, width):
    function = single.convert_flux_transformer_checkpoint_to_diffusers if is_flux(key) else (
        single.convert_sd3_transformer_checkpoint_to_diffusers)
    source = inspect.getsource(function).replace("inner_dim = 3072", f"inner_dim = {width}")
    scope = dict(vars(single))
    exec(source, scope)
    return scope[function.__name__]


def ranges(rows):
    """[[begin, count], …] of a list of row numbers."""
    out = []
    for row in rows:
        if out and row == out[-1][0] + out[-1][1]:
            out[-1][1] += 1
        else:
            out.append([row, 1])
    return out


def layout(key):
    state = transformer_of(key)[0].state_dict()
    shapes = original_shapes(key, state)
    names, numbered = list(shapes), {}
    for place, name in enumerate(names):
        rows = torch.arange(shapes[name][0], dtype=torch.float64) + 10_000 * place
        numbered[name] = rows.view(-1, *[1] * (len(shapes[name]) - 1)).expand(shapes[name]).clone()
    config = MODELS[key]["transformer"]
    made = converter(key, config["num_attention_heads"] * config["attention_head_dim"])(numbered)
    assert not numbered, f"diffusers leaves out {list(numbered)}"
    assert {name: list(value.shape) for name, value in made.items()} == {
        name: list(value.shape) for name, value in state.items()}, key
    pieces = {}
    for name, value in made.items():
        rows = value.reshape(value.shape[0], -1)[:, 0].long()
        (place,) = set((rows // 10_000).tolist())
        pieces[name] = [names[place], ranges((rows % 10_000).tolist())]
    return {"shapes": shapes, "pieces": pieces}


if __name__ == "__main__":
    content = {key: layout(key) for key in ("sd3", "sd35", "flux_dev", "flux_schnell")}
    OUT.write_text(json.dumps(content, separators=(",", ":")) + "\n")
