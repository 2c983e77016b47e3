"""Adapters of tiny networks of Stable Diffusion 3 and FLUX in the layouts of other programs, and
the weights that they make, as diffusers 0.42.1 converts them.

    python tests/golden/make_transformer_adapters.py

LoRA of FLUX goes through diffusers' converters of adapters, whose sizes are constants of the
released model: they are run with those of the tiny one. All other cases merge into the weights of
the original layout by each method's formula, and diffusers' converters of checkpoints rename the
result. Writes transformer_adapters.safetensors: "CASE|adapter|NAME", "CASE|merged|NAME",
"FAMILY|base|NAME".
"""

import copy
import inspect
import pathlib

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from diffusers.loaders import lora_conversion_utils as lora
from diffusers.loaders import single_file_utils as single
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parent / "data" / "transformer_adapters.safetensors"
WIDTH, RANK = 8, 2
BLOCKS = {"flux": (1, 1), "sd3": (2, 0)}
tensors = {}


def random(*shape):
    return 0.5 * torch.randn(*shape)


def shrunk(function):
    """A converter with the tiny network's sizes in the place of FLUX.1's."""
    source = inspect.getsource(function)
    for large, small in (("12288", str(4 * WIDTH)), ("3072", str(WIDTH)), ("range(19)", "range(1)"),
                         ("range(38)", "range(1)"), ("num_layers = 19", "num_layers = 1"),
                         ("num_single_layers = 38", "num_single_layers = 1")):
        source = source.replace(large, small)
    scope = dict(vars(lora))
    exec(source, scope)
    return scope[function.__name__]


def networks():
    flux = FluxTransformer2DModel(
        in_channels=8, num_layers=1, num_single_layers=1, attention_head_dim=4,
        num_attention_heads=2, joint_attention_dim=6, pooled_projection_dim=4,
        guidance_embeds=True, axes_dims_rope=(0, 2, 2))
    sd3 = SD3Transformer2DModel(
        sample_size=4, num_layers=2, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=6, caption_projection_dim=WIDTH, pooled_projection_dim=4,
        in_channels=2, out_channels=2, pos_embed_max_size=4, dual_attention_layers=(0,),
        qk_norm="rms_norm")
    for net in (flux, sd3):
        for parameter in net.parameters():
            parameter.data = random(*parameter.shape)
    return {"flux": flux.state_dict(), "sd3": sd3.state_dict()}


def original_names(family, base):
    """The original layer's name -> (the network's layers, whether its halves are swapped)."""
    qkv = lambda at, q="to_q", k="to_k", v="to_v": [f"{at}.{q}", f"{at}.{k}", f"{at}.{v}"]
    added = ("add_q_proj", "add_k_proj", "add_v_proj")
    time = "time_text_embed."
    names = {}
    if family == "flux":
        d, t = "double_blocks.0.", "transformer_blocks.0."
        names |= {d + "img_mod.lin": [t + "norm1.linear"],
                  d + "txt_mod.lin": [t + "norm1_context.linear"],
                  d + "img_attn.qkv": qkv(t + "attn"), d + "txt_attn.qkv": qkv(t + "attn", *added),
                  d + "img_attn.proj": [t + "attn.to_out.0"],
                  d + "txt_attn.proj": [t + "attn.to_add_out"]}
        for ours, theirs in (("ff", "img"), ("ff_context", "txt")):
            names[f"{d}{theirs}_mlp.0"] = [f"{t}{ours}.net.0.proj"]
            names[f"{d}{theirs}_mlp.2"] = [f"{t}{ours}.net.2"]
        s, t = "single_blocks.0.", "single_transformer_blocks.0."
        names |= {s + "modulation.lin": [t + "norm.linear"],
                  s + "linear1": qkv(t + "attn") + [t + "proj_mlp"],
                  s + "linear2": [t + "proj_out"],
                  "img_in": ["x_embedder"], "txt_in": ["context_embedder"]}
        for theirs, ours in (("time_in", "timestep"), ("vector_in", "text"), ("guidance_in", "guidance")):
            for i, layer in ((1, "in"), (2, "out")):
                names[f"{theirs}.{layer}_layer"] = [f"{time}{ours}_embedder.linear_{i}"]
    else:
        for i in range(2):
            x, c, t = f"joint_blocks.{i}.x_block.", f"joint_blocks.{i}.context_block.", f"transformer_blocks.{i}."
            names |= {x + "attn.qkv": qkv(t + "attn"), c + "attn.qkv": qkv(t + "attn", *added),
                      x + "attn.proj": [t + "attn.to_out.0"],
                      x + "adaLN_modulation.1": [t + "norm1.linear"],
                      c + "adaLN_modulation.1": [t + "norm1_context.linear"],
                      x + "mlp.fc1": [t + "ff.net.0.proj"], x + "mlp.fc2": [t + "ff.net.2"]}
            if i == 0:
                names |= {x + "attn2.qkv": qkv(t + "attn2"), x + "attn2.proj": [t + "attn2.to_out.0"],
                          c + "attn.proj": [t + "attn.to_add_out"],
                          c + "mlp.fc1": [t + "ff_context.net.0.proj"],
                          c + "mlp.fc2": [t + "ff_context.net.2"]}
        names |= {"context_embedder": ["context_embedder"]}
        for theirs, ours in (("t", "timestep"), ("y", "text")):
            for i in (1, 2):
                names[f"{theirs}_embedder.mlp.{2 * i - 2}"] = [f"{time}{ours}_embedder.linear_{i}"]
    names |= {"final_layer.linear": ["proj_out"], "final_layer.adaLN_modulation.1": ["norm_out.linear"]}
    return names


SWAPPED = ("final_layer.adaLN_modulation.1", "joint_blocks.1.context_block.adaLN_modulation.1")


def original_weights(family, base):
    """The base in the original layout. Read back by diffusers' converter, it is the base again."""
    weights = {}
    for name, layers in original_names(family, base).items():
        for kind in ("weight", "bias"):
            whole = torch.cat([base[f"{layer}.{kind}"] for layer in layers])
            if name in SWAPPED:
                scale, shift = whole.chunk(2)
                whole = torch.cat([shift, scale])
            weights[f"{name}.{kind}"] = whole
    if family == "flux":
        for blocks, t, pairs in (("double_blocks.0.", "transformer_blocks.0.attn.", (("img_attn.norm", ""), ("txt_attn.norm", "added_"))),
                                 ("single_blocks.0.", "single_transformer_blocks.0.attn.", (("norm", ""),))):
            for theirs, ours in pairs:
                for letter, word in (("q", "query"), ("k", "key")):
                    weights[f"{blocks}{theirs}.{word}_norm.scale"] = base[f"{t}norm_{ours}{letter}.weight"]
    else:
        weights |= {"pos_embed": base["pos_embed.pos_embed"], "x_embedder.proj.weight": base["pos_embed.proj.weight"],
                    "x_embedder.proj.bias": base["pos_embed.proj.bias"]}
        for i in range(2):
            x, c, t = f"joint_blocks.{i}.x_block.", f"joint_blocks.{i}.context_block.", f"transformer_blocks.{i}."
            for letter in "qk":
                weights[f"{x}attn.ln_{letter}.weight"] = base[f"{t}attn.norm_{letter}.weight"]
                weights[f"{c}attn.ln_{letter}.weight"] = base[f"{t}attn.norm_added_{letter}.weight"]
                if i == 0:
                    weights[f"{x}attn2.ln_{letter}.weight"] = base[f"{t}attn2.norm_{letter}.weight"]
    return weights


def converted(family, weights):
    """diffusers' converter of checkpoints."""
    if family == "flux":
        source = inspect.getsource(single.convert_flux_transformer_checkpoint_to_diffusers)
        source = source.replace("3072", str(WIDTH))
        scope = dict(vars(single))
        exec(source, scope)
        return scope["convert_flux_transformer_checkpoint_to_diffusers"](copy.copy(weights))
    return single.convert_sd3_transformer_checkpoint_to_diffusers(copy.copy(weights))


def keep(case, adapter, merged, base):
    changed = {name: value for name, value in merged.items() if not torch.equal(value, base[name])}
    for name, value in adapter.items():
        tensors[f"{case}|adapter|{name}"] = value.contiguous().clone()
    for name, value in changed.items():
        tensors[f"{case}|merged|{name}"] = value.contiguous().clone()
    print(case, len(adapter), "tensors,", len(changed), "changed")


def lora_delta(state, name):
    """What diffusers adds: its converted files have scale 1."""
    return state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]


def merge_lora(state, base):
    merged = dict(base)
    plain = {name.removeprefix("transformer."): value.float() for name, value in state.items()}
    for name in [n.removesuffix(".lora_A.weight") for n in plain if n.endswith(".lora_A.weight")]:
        merged[f"{name}.weight"] = base[f"{name}.weight"] + lora_delta(plain, name)
        if f"{name}.lora_B.bias" in plain:
            merged[f"{name}.bias"] = base[f"{name}.bias"] + plain[f"{name}.lora_B.bias"]
    for name in plain:
        if ".norm_" in name:
            merged[name] = plain[name]
    return merged


def pair(out, inside, rank=RANK):
    return random(rank, inside), random(out, rank)


def flux_lora_cases(base, original):
    names = original_names("flux", base)
    shapes = {name: original[f"{name}.weight"].shape for name in names}

    def kohya(rank, alpha, sparse=False, without=("final_layer",)):
        state = {}
        for name, shape in shapes.items():
            if name.startswith(without):
                continue
            key = "lora_unet_" + name.replace(".", "_")
            parts = len(names[name]) if sparse else 1
            down, up = pair(shape[0], shape[1], rank * parts)
            if parts > 1:
                mask, row = torch.zeros_like(up), 0
                for i, layer in enumerate(names[name]):
                    rows = base[f"{layer}.weight"].shape[0]
                    mask[row:row + rows, i * rank:(i + 1) * rank] = 1
                    row += rows
                up = up * mask
            state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up,
                      f"{key}.alpha": torch.tensor(alpha * parts)}
        return state

    convert = shrunk(lora._convert_kohya_flux_lora_to_diffusers)
    for case, state in (("flux_kohya", kohya(RANK, 3.0)), ("flux_kohya_sparse", kohya(1, 1.5, sparse=True)),
                        # diffusers ignores the alpha of the final layers, which is their rank here
                        ("flux_kohya_final", kohya(RANK, float(RANK), without=("double_blocks",)))):
        result = convert(copy.deepcopy(state))
        keep(case, state, merge_lora(result, base), base)

    xlabs = {}
    for block, t in (("double_blocks.0", ("qkv_lora1", "qkv_lora2", "proj_lora1", "proj_lora2")),
                     ("single_blocks.0", ("qkv_lora", "proj_lora"))):
        for layer in t:
            inside = 5 * WIDTH if (block, layer) == ("single_blocks.0", "proj_lora") else WIDTH
            down, up = pair(3 * WIDTH if "qkv" in layer else WIDTH, inside)
            xlabs |= {f"{block}.processor.{layer}.down.weight": down, f"{block}.processor.{layer}.up.weight": up}
    keep("flux_xlabs", xlabs, merge_lora(lora._convert_xlabs_flux_lora_to_diffusers(dict(xlabs)), base), base)

    control = {}
    for name, shape in shapes.items():
        down, up = pair(shape[0], shape[1])
        control |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.lora_B.bias": random(shape[0])}
    control |= {name: random(*value.shape) for name, value in original.items() if name.endswith(".scale")}
    result = shrunk(lora._convert_bfl_flux_control_lora_to_diffusers)(dict(control))
    result = {name.removeprefix("transformer."): value for name, value in result.items()}
    # That converter swaps the halves of lora_A, too, whose rows are ranks; kohya's swaps lora_B's.
    result["norm_out.linear.lora_A.weight"] = control["final_layer.adaLN_modulation.1.lora_A.weight"]
    keep("flux_control", control, merge_lora(result, base), base)

    layers = [layer for some in names.values() for layer in some]
    state = {}
    for layer in layers:
        down, up = pair(*base[f"{layer}.weight"].shape)
        state |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    merged = merge_lora(state, base)
    keep("flux_diffusers", {f"transformer.{name}": value for name, value in state.items()}, merged, base)
    keep("flux_peft", {f"base_model.model.{name}": value for name, value in state.items()}, merged, base)
    keep("flux_comfyui", {f"diffusion_model.{n}.{e}.weight": control[f"{n}.{e}.weight"] for n in names for e in ("lora_A", "lora_B")},
         merge_lora({n: v for n, v in result.items() if "bias" not in n and ".norm_" not in n}, base), base)


def method_cases(family, base, original):
    """Every method in the original layout, by its formula."""
    names = original_names(family, base)

    def case(kind, change, keys="lora_unet"):
        weights, state = dict(original), {}
        for name, layers in names.items():
            plain = len(layers) == 1 and name not in SWAPPED
            if plain and kind not in ("kohya", "comfyui") and not name.endswith("attn.proj"):
                continue
            w = original[f"{name}.weight"]
            made = change(name, w)
            if made is None:
                continue
            own, weights[f"{name}.weight"] = made
            key = f"lora_unet_{name.replace('.', '_')}" if keys == "lora_unet" else f"{keys}.{name}"
            state |= {f"{key}.{what}": value for what, value in own.items()}
        keep(f"{family}_{kind}", state, converted(family, weights), base)

    def low_rank(name, w, rank=RANK, alpha=3.0):
        down, up = pair(w.shape[0], w.shape[1], rank)
        own = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(alpha)}
        return own, w + alpha / rank * up @ down

    def dora(name, w):
        own, moved = low_rank(name, w)
        m = random(w.shape[0], 1).abs() + 0.5
        return own | {"dora_scale": m}, m * moved / moved.norm(dim=1, keepdim=True)

    def loha(name, w):
        a1, b1, a2, b2 = random(w.shape[0], RANK), random(RANK, w.shape[1]), random(w.shape[0], RANK), random(RANK, w.shape[1])
        own = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2, "alpha": torch.tensor(3.0)}
        return own, w + 3.0 / RANK * (a1 @ b1) * (a2 @ b2)

    def lokr(rows):
        def change(name, w):
            b = rows if w.shape[0] % rows == 0 else 2
            w1, w2a, w2b = random(w.shape[0] // b, 2), random(b, 1), random(1, w.shape[1] // 2)
            own = {"lokr_w1": w1, "lokr_w2_a": w2a, "lokr_w2_b": w2b, "alpha": torch.tensor(2.0)}
            return own, w + 2.0 * torch.kron(w1, w2a @ w2b)
        return change

    def lokr_whole(name, w):
        # Rows of the pieces cut through the blocks, where there are several.
        b = 12 if w.shape[0] % 12 == 0 else 4
        if w.shape[0] % b or name in SWAPPED:
            return None
        w1, w2 = random(w.shape[0] // b, w.shape[1] // 2), random(b, 2)
        return {"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(7.0)}, w + torch.kron(w1, w2)

    def oft(limit):
        def change(name, w):
            m = random(w.shape[0] // 4, 4, 4)
            q = m - m.transpose(1, 2)
            if limit:
                q = q * min(1.0, limit * w.shape[0] / q.norm().item())
            r = (torch.eye(4) + q) @ torch.linalg.inv(torch.eye(4) - q)
            turned = torch.einsum("kmn,km...->kn...", r, w.view(-1, 4, w.shape[1])).reshape(w.shape)
            return {"oft_blocks": m, "alpha": torch.tensor(limit)}, turned
        return change

    def difference(name, w):
        d = random(*w.shape)
        return {"diff": d}, w + d

    case("dora", dora)
    case("loha", loha)
    case("lokr", lokr(4))
    case("lokr_cut", lokr_whole, "diffusion_model")
    case("oft", oft(0.0))
    case("oft_limited", oft(0.05))
    case("diff", difference)
    if family == "sd3":
        case("kohya", low_rank)
        case("comfyui", low_rank, "diffusion_model")


def main():
    torch.manual_seed(3)
    with torch.no_grad():
        for family, base in networks().items():
            for name, value in base.items():
                tensors[f"{family}|base|{name}"] = value.contiguous().clone()
            original = original_weights(family, base)
            again = converted(family, original)
            assert all(torch.equal(again[name], base[name]) for name in again), family
            assert set(again) == set(base), set(again) ^ set(base)
            if family == "flux":
                flux_lora_cases(base, original)
            method_cases(family, base, original)
    save_file(tensors, OUT)


main()
