"""Golden adapters: files that PEFT, LyCORIS and diffusers write, and what the network then computes.

    PYTHONHASHSEED=0 OMP_NUM_THREADS=1 python make_adapters.py     writes data/adapters/

Every case is made by the library, filled with values away from its start, saved by the library's own code, read
back by the library into a fresh network, and run in fp32: outputs, effective weights, and the gradients of
sum(tanh(y) * probe) with respect to every tensor of the file. Base weights, inputs and probes follow formula.py by
name (`linear.weight`, `linear.x`, `linear.probe`) and are in base.safetensors too. Where a library contradicts
itself, `weight` and `y` agree with each other and follow the forward pass that training uses; what the library says
elsewhere is stored beside them under a longer name, and the case's note says so. Pinned: torch 2.15.0, peft 0.21.2,
lycoris-lora 4.1.3, diffusers 0.42.1, safetensors 0.8.0.
"""
import json
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import warnings

if os.environ.get("PYTHONHASHSEED") != "0":  # PEFT writes sets of names in hash order
    os.execve(sys.executable, [sys.executable, *sys.argv],
              {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"})
warnings.filterwarnings("ignore")

import peft
import torch
import torch.nn.functional as F
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from lycoris.kohya import LycorisNetworkKohya
from lycoris.wrapper import LycorisNetwork, create_lycoris_from_weights
from peft.tuners.boft import layer as boft_layer
from safetensors.torch import load_file, save_file

import formula

logging.disable(logging.WARNING)
DATA = pathlib.Path(__file__).parent / "data" / "adapters"
Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
TEXT_Q = "text_model.encoder.layers.0.self_attn.q_proj"
INPUTS = {"linear": (2, 3, 48), "conv": (2, 8, 5, 6), "wide": (2, 3, 56), "layer_norm": (2, 3, 48),
          "group_norm": (2, 8, 5, 6), Q: (2, 3, 48), OUT: (2, 3, 48), TEXT_Q: (2, 3, 48)}
BOTH, LINEAR = ["linear", "conv"], ["linear"]
CASES = []
TOLERANCE = 2e-5


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(48, 40)
        self.conv = torch.nn.Conv2d(8, 12, 3, 1, 1)
        self.wide = torch.nn.Linear(56, 64)
        self.layer_norm = torch.nn.LayerNorm(48)
        self.group_norm = torch.nn.GroupNorm(4, 8)
        for path in (Q, OUT, TEXT_Q):
            parent = self
            *folders, leaf = path.split(".")
            for folder in folders:
                if not hasattr(parent, folder):
                    parent.add_module(folder, torch.nn.Module())
                parent = getattr(parent, folder)
            parent.add_module(leaf, torch.nn.Linear(48, 40))
        formula.fill(self)
        self.requires_grad_(False).eval()

    def forward(self, x):
        return self.linear(x)


BASE = dict(Net().named_parameters())


def x_of(layer):
    return formula.uniform(layer + ".x", INPUTS[layer])


def plain(layer, weight, bias):
    """The layer's own operation with these weights."""
    x = x_of(layer)
    if layer == "conv":
        return F.conv2d(x, weight, bias, 1, 1)
    if layer == "layer_norm":
        return F.layer_norm(x, (48,), weight, bias)
    if layer == "group_norm":
        return F.group_norm(x, 4, weight, bias)
    return F.linear(x, weight, bias)


def loss_of(layer, y):
    return (torch.tanh(y) * formula.uniform(layer + ".probe", tuple(y.shape))).sum()


def distance(a, b):
    return (a - b).abs().max().item()


def fill(case, name, parameter, scale):
    """Values away from the start; factors that start near one stay near one."""
    near_one = ("magnitude", "boft_s", "ia3_l", "dora_scale", "rescale")
    with torch.no_grad():
        noise = formula.uniform(f"{case}.{name}", tuple(parameter.shape))
        if any(word in name for word in near_one):
            parameter.mul_(1 + 0.3 * noise)
        elif name.endswith(".scalar"):
            parameter.fill_(0.7)
        else:
            parameter.copy_(scale * noise)


def record(name, library, file, layers, config, note, results, measured):
    """Checks that `y` is what `weight` and `bias` give, and writes the case."""
    change = {}
    for layer in layers:
        weight, bias = results[layer + ".weight"], results.get(layer + ".bias", BASE[layer + ".bias"])
        error = distance(results[layer + ".y"], plain(layer, weight, bias))
        assert error < TOLERANCE, (name, layer, error)
        base = BASE[layer + ".weight"]
        change[layer] = round(((weight - base).norm() / base.norm()).item(), 4)
        if distance(bias, BASE[layer + ".bias"]) == 0:
            results.pop(layer + ".bias", None)
    results = {key: value.detach().contiguous().clone() for key, value in results.items()}
    assert all(value.isfinite().all() for value in results.values()), name
    save_file(results, DATA / f"{name}.expected.safetensors", {"format": "pt"})
    CASES.append(dict(name=name, library=library, file=file, expected=f"{name}.expected.safetensors", layers=layers,
                      config=config, note=note, relative_change=change,
                      measured={key: float(f"{value:.3g}") for key, value in measured.items()}))


# PEFT


class BlockDiagonal:
    """What PEFT's CUDA extension for BOFT computes, so that its own code runs with m > 1 on a CPU."""

    @staticmethod
    def forward(blocks):
        return [torch.stack([torch.block_diag(*factor) for factor in blocks])]

    @staticmethod
    def backward(gradient, blocks):
        n, b = blocks.shape[1], blocks.shape[2]
        return [torch.stack([torch.stack([g[i * b:(i + 1) * b, i * b:(i + 1) * b] for i in range(n)])
                             for g in gradient])]


boft_layer._FBD_CUDA = BlockDiagonal


def module_at(model, layer):
    return model.base_model.model.get_submodule(layer)


def peft_file_name(parameter_name, tensors):
    name = parameter_name.replace(".default", "")
    return name if name in tensors else name.removesuffix(".weight")


def save_peft(model, folder, **options):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder), **options)
    (folder / "README.md").unlink(missing_ok=True)
    return load_file(folder / "adapter_model.safetensors")


def peft_case(name, config, layers, scale=0.3, note="", before_save=None, save=None, conv_from_weight=False,
              extra=None):
    name = "peft_" + name
    torch.manual_seed(0)
    model = peft.get_peft_model(Net(), config).eval()
    initial = tempfile.mkdtemp()
    if save == "converted":  # the adapter before training, which save_pretrained subtracts
        start = model.peft_config["default"].init_lora_weights
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(initial + "/first")
        model.peft_config["default"].init_lora_weights = start
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            fill(name, parameter_name.replace(".default", ""), parameter, scale)
    if before_save:
        before_save(model)
    options = dict(path_initial_model_for_weight_conversion=initial + "/first") if save == "converted" else {}
    tensors = save_peft(model, DATA / name, **options)
    shutil.rmtree(initial)
    torch.manual_seed(1)  # nothing may depend on the seed any more
    loaded = peft.PeftModel.from_pretrained(Net(), str(DATA / name), is_trainable=True).eval()

    results, measured, total = {}, {}, 0
    for layer in layers:
        module = module_at(loaded, layer)
        y = module(x_of(layer))
        with torch.no_grad():
            measured[f"{layer}: saved and loaded, |dy|"] = distance(y, module_at(model, layer)(x_of(layer)))
        if layer == "conv" and conv_from_weight:
            results["conv.y_library_forward"] = y
            rotation = module.oft_R["default"]  # the forward pass has projected it; get_weight would detach it
            rotation.coft = False
            w = BASE["conv.weight"].reshape(12, -1) @ module.get_delta_weight("default").T
            rotation.coft = config.coft
            y = F.conv2d(x_of("conv"), w.view(12, 8, 3, 3), BASE["conv.bias"], 1, 1)
            measured["conv: library's forward against its merge, |dy|"] = distance(
                results["conv.y_library_forward"], y)
        results[layer + ".y"] = y
        total = total + loss_of(layer, y)
    total.backward()
    grads = 0
    for parameter_name, parameter in loaded.named_parameters():
        if parameter.requires_grad:
            key = peft_file_name(parameter_name, tensors)
            assert key in tensors, (name, key, sorted(tensors))
            layer = next(layer for layer in layers if f".{layer}." in key)
            results[f"{layer}.grad.{key}"] = parameter.grad
            grads += 1
    assert grads > 0, name
    if extra:
        results.update(extra(loaded))
    saved = json.loads((DATA / name / "adapter_config.json").read_text())
    with torch.no_grad():
        for layer in layers:
            module = module_at(loaded, layer)
            if isinstance(saved.get("init_lora_weights"), str):
                results[layer + ".frozen_weight"] = module.get_base_layer().weight.clone()
            module.merge()
            results[layer + ".weight"] = module.get_base_layer().weight.clone()
            results[layer + ".bias"] = module.get_base_layer().bias.clone()
    record(name, "peft", name, layers, {"peft_type": saved["peft_type"]}, note, results, measured)


def lora(layers=BOTH, **options):
    return peft.LoraConfig(**{"r": 4, "lora_alpha": 2, "target_modules": layers, **options})


def mask_adalora(model):
    """As update_and_allocate leaves it: masked singular values are zero, and the pattern is in the config."""
    pattern = {"linear.lora_E": [True, False, True, True, False, True],
               "conv.lora_E": [False, True, True, False, True, False]}
    with torch.no_grad():
        for key, kept in pattern.items():
            e = module_at(model, key.split(".")[0]).lora_E["default"]
            e.mul_(torch.tensor(kept).float()[:, None])
    model.peft_config["default"].rank_pattern = pattern


def uneven_coft(model):
    """Some blocks inside the bound, some outside."""
    with torch.no_grad():
        for layer in BOTH:
            weight = module_at(model, layer).oft_R["default"].weight
            weight.mul_(torch.linspace(0.05, 1.5, weight.shape[0])[:, None])


def peft_cases():
    peft_case("lora", lora(), BOTH)
    peft_case("lora_rslora", lora(use_rslora=True), BOTH, note="scale = alpha / sqrt(r)")
    peft_case("lora_patterns", lora(rank_pattern={"conv": 2}, alpha_pattern={"linear": 3.0, "^conv$": 5.0}), BOTH,
              note="linear: r 4, alpha 3; conv: r 2, alpha 5. Keys are matched as `(.*\\.)?(KEY)$` against the path.")
    peft_case("lora_bias", lora(lora_bias=True), BOTH, note="bias' = bias + scale * lora_B.bias")
    init = "PEFT changes the frozen weight at creation and again at loading: frozen_weight = W0 - scale * B0 A0. "
    peft_case("lora_pissa", lora(LINEAR, init_lora_weights="pissa"), LINEAR, note=init +
              "scale * B0 A0 is the truncated SVD of W0 at rank r, whatever alpha is. weight = frozen_weight + "
              "scale * B A.")
    peft_case("lora_olora", lora(LINEAR, init_lora_weights="olora"), LINEAR, note=init +
              "B0, A0 = Q[:, :r], R[:r] of W0 = QR, so scale (alpha / r) does matter. weight = frozen_weight + "
              "scale * B A.")
    peft_case("lora_pissa_converted", lora(LINEAR, init_lora_weights="pissa"), LINEAR, save="converted",
              note="save_pretrained(path_initial_model_for_weight_conversion): a plain LoRA on W0 of rank 2r with "
                   "alpha doubled: A = [A; A0], B = [B, -B0].")
    peft_case("lora_dora", lora(use_dora=True), BOTH,
              note="W' = m / |W0 + s B A| (W0 + s B A), norm per output row, detached from the gradient, no eps.")
    oft = dict(target_modules=BOTH, use_cayley_neumann=False)
    fold = (" conv: PEFT's forward unfolds without padding and F.fold sums overlaps, which is not its own merge; y "
            "and gradients here use the merged weight, y_library_forward is PEFT's forward.")
    conv = dict(conv_from_weight=True)
    peft_case("oft_cayley", peft.OFTConfig(r=0, oft_block_size=16, **oft), BOTH, 0.1, **conv,
              note="R = (I - Q)(I + Q)^-1, W' = W0 blockdiag(R)^T. conv: 72 is no multiple of 16, the block size "
                   "becomes 18." + fold)
    peft_case("oft_neumann", peft.OFTConfig(r=0, oft_block_size=8, target_modules=BOTH), BOTH, 0.1, **conv,
              note="Default. R = I + 2Q + 2Q^2 + 2Q^3 + Q^4, not exactly orthogonal; the sign of Q is the opposite "
                   "of the exact Cayley's." + fold)
    peft_case("oft_neumann_3", peft.OFTConfig(r=0, oft_block_size=8, target_modules=LINEAR,
                                              num_cayley_neumann_terms=3), LINEAR, 0.1,
              note="R = I + 2Q + 2Q^2 + Q^3: three terms and four terms are the same in PEFT.")
    peft_case("oft_neumann_7", peft.OFTConfig(r=0, oft_block_size=8, target_modules=LINEAR,
                                              num_cayley_neumann_terms=7), LINEAR, 0.1,
              note="R = I + 2(Q + ... + Q^5) + Q^6")
    peft_case("oft_share", peft.OFTConfig(r=0, oft_block_size=8, block_share=True, **oft), BOTH, 0.15, **conv,
              note="One block for all." + fold)
    peft_case("oft_coft", peft.OFTConfig(r=0, oft_block_size=8, coft=True, eps=0.8, **oft), BOTH, 0.3, **conv,
              before_save=uneven_coft,
              note="The file holds unprojected values; PEFT projects in place at every forward and merge: each "
                   "block's |Q|_F <= eps / sqrt(n_blocks). Gradients are at the projected values, not through the "
                   "projection." + fold)
    peft_case("oft_coft_share", peft.OFTConfig(r=0, oft_block_size=8, coft=True, eps=0.8, block_share=True,
                                               **{**oft, "target_modules": LINEAR}), LINEAR, 0.3,
              note="With block_share n_blocks is 1, so that the bound is eps.")
    peft_case("oft_r", peft.OFTConfig(r=5, oft_block_size=0, **oft), BOTH, 0.1, **conv,
              note="r is the number of blocks, adjusted to the nearest divisor, the lower at equal distance: 48: 5 "
                   "-> 4 (4 and 6 are equally near); 72: 5 -> 4. Block sizes 12 and 18." + fold)
    boft = dict(boft_block_size=4, target_modules=BOTH)
    stand_in = " Run with a stand-in for PEFT's CUDA extension, without which PEFT silently makes m = 1."
    peft_case("boft_m1", peft.BOFTConfig(boft_n_butterfly_factor=1, **boft), BOTH,
              note="S = (M - M^T) / 2, R = (I - S)(I + S)^-1, W' = s * W0 blockdiag(R)^T per row; the bias is not "
                   "scaled.")
    peft_case("boft_m2", peft.BOFTConfig(boft_n_butterfly_factor=2, **boft), BOTH, note="W' = s * W0 (B1 B0)^T, "
              "Bi = Pi blockdiag(Ri) Pi^T." + stand_in)
    peft_case("boft_m3", peft.BOFTConfig(boft_n_butterfly_factor=3, **{**boft, "target_modules": LINEAR}), LINEAR,
              note="As m = 2 with three factors." + stand_in)
    peft_case("boft_num", peft.BOFTConfig(boft_block_size=0, boft_block_num=6, boft_n_butterfly_factor=2,
                                          target_modules=BOTH), BOTH,
              note="boft_block_num: 6 blocks of 8 (linear), of 12 (conv)." + stand_in)
    for gs in (False, True):
        peft_case("hra_gs" if gs else "hra", peft.HRAConfig(r=4, apply_GS=gs, target_modules=BOTH), BOTH,
                  note="W' = W0 (I - 2 U U^T), U by Gram-Schmidt of the columns in order" if gs else
                       "W' = W0 (I - 2 u0 u0^T)(I - 2 u1 u1^T)..., u normalised")
    peft_case("ia3", peft.IA3Config(target_modules=BOTH, feedforward_modules=[]), BOTH,
              note="Output: W' = l * W0 per row AND bias' = l * bias.")
    peft_case("ia3_feedforward", peft.IA3Config(target_modules=BOTH, feedforward_modules=BOTH), BOTH,
              note="Input: W' = W0 * l per column; the bias stays.")
    loha = dict(r=4, alpha=2, target_modules=BOTH)
    peft_case("loha", peft.LoHaConfig(**loha), BOTH, 0.9, note="conv flattened to [out, in k k]")
    peft_case("loha_effective", peft.LoHaConfig(use_effective_conv2d=True, **loha), BOTH, 0.7)
    lokr = dict(r=2, alpha=1, decompose_factor=2, target_modules=BOTH)
    peft_case("lokr", peft.LoKrConfig(**lokr), BOTH, 0.8, note="w1 full, w2 factored (conv flattened)")
    peft_case("lokr_full", peft.LoKrConfig(**{**lokr, "r": 16, "alpha": 8, "decompose_factor": -1}), BOTH, 0.5,
              note="w1 and w2 full; alpha / r = 0.5 counts, where LyCORIS sets the scale to 1 for such a file.")
    peft_case("lokr_both", peft.LoKrConfig(**{**lokr, "decompose_factor": -1}, decompose_both=True,
                                           rank_pattern={"conv": 1}), BOTH, 0.8,
              note="w1 and w2 factored; conv has r 1, so that its scale is alpha / 1")
    peft_case("lokr_effective", peft.LoKrConfig(use_effective_conv2d=True, **lokr), BOTH, 0.8)
    peft_case("lokr_factor8", peft.LoKrConfig(**{**lokr, "decompose_factor": 8, "target_modules": LINEAR}), LINEAR,
              0.8, note="PEFT does not swap so that m <= n: 40 = 8 * 5, 48 = 8 * 6, w1 is [8, 8]")
    for projection in (True, False):
        peft_case("vera" if projection else "vera_no_projection",
                  peft.VeraConfig(r=8, projection_prng_key=11, save_projection=projection,
                                  target_modules=["linear", "wide"]), ["linear", "wide"], 0.8,
                  note="W' = W0 + diag(b) B[:out] diag(d) A[:, :in]; A [8, 56], B [64, 8] shared. " + (
                      "" if projection else "A and B are not in the file: torch's CPU generator of seed "
                      "projection_prng_key, first A, then B, uniform in +-sqrt(6 / fan_in), fan_in = columns (56; 8)."),
                  extra=lambda model: {"vera_A": model.base_model.vera_A["default"],
                                       "vera_B": model.base_model.vera_B["default"]})
    for seed in (777, 5):
        peft_case("fourierft" if seed == 777 else "fourierft_seed5",
                  peft.FourierFTConfig(n_frequency=64, scaling=150.0, random_loc_seed=seed, target_modules=LINEAR),
                  LINEAR, 0.3, note="W' = W0 + scaling * Re ifft2(S); positions in `linear.indices` (row; column).",
                  extra=lambda model: {"linear.indices": module_at(model, "linear").indices["default"]})
    for ab, c, de in (("lora", "lora", "vector"), ("vector", "vector", "constant"), ("constant", "none", "none")):
        peft_case("glora_" + ab, peft.GloraConfig(r=4, config_A_B=ab, config_C=c, config_D_E=de,
                                                  target_modules=LINEAR), LINEAR, 0.4,
                  note="Elementwise: W' = W0 + W0 * A + B, bias' = bias + bias * D + E + W0 C; lora: Xd Xu. Not the "
                       "matrix product of LyCORIS.")
    adalora = dict(init_r=6, target_r=3, lora_alpha=2, total_step=20, tinit=2, tfinal=4, target_modules=BOTH)
    peft_case("adalora", peft.AdaLoraConfig(**adalora), BOTH, 0.6,
              note="W' = W0 + alpha / (init_r + 1e-5) B (A * E): the scale is alpha / r of no other method.")
    peft_case("adalora_pattern", peft.AdaLoraConfig(**adalora), BOTH, 0.6, before_save=mask_adalora,
              note="rank_pattern: the file has only the kept rows, but the scale stays alpha / (init_r + 1e-5).")


# LyCORIS


def lycoris_network(net, algo, layers, kohya, dim, alpha, conv_dim, conv_alpha, train_norm, options):
    arguments = dict(multiplier=1.0, lora_dim=dim, conv_lora_dim=conv_dim or dim, alpha=alpha,
                     conv_alpha=conv_alpha or alpha, network_module=algo, train_norm=train_norm, **options)
    if kohya:
        LycorisNetworkKohya.apply_preset(dict(unet_target_module=[], unet_target_name=layers,
                                              text_encoder_target_module=[], text_encoder_target_name=[]))
        return LycorisNetworkKohya(None, net, **arguments)
    LycorisNetwork.apply_preset(dict(target_module=[], target_name=layers))
    return LycorisNetwork(net, **arguments)


def apply(network, net, kohya):
    network.apply_to(*((None, net, False, True) if kohya else ()))
    network.requires_grad_(True).eval()


def reading_trouble(path, layers, truth):
    """What LyCORIS's own create_lycoris_from_weights makes of the file."""
    net = Net()
    try:
        network, _ = create_lycoris_from_weights(1.0, str(path), net)
        network.apply_to()
        network.eval()
        with torch.no_grad():
            wrong = {layer: distance(net.get_submodule(layer)(x_of(layer)), truth[layer + ".y"]) for layer in layers}
    except Exception as error:
        return f" create_lycoris_from_weights fails: {type(error).__name__}: {str(error).splitlines()[0]}"
    if max(wrong.values()) < TOLERANCE:
        return ""
    return " create_lycoris_from_weights computes something else: |dy| = " + ", ".join(
        f"{value:.3g} ({layer})" for layer, value in wrong.items())


def lycoris_case(name, algo, layers=BOTH, scale=0.3, note="", kohya=False, dim=4, alpha=2.0, conv_dim=None,
                 conv_alpha=None, train_norm=False, **options):
    name = "lycoris_" + name
    path = DATA / f"{name}.safetensors"
    make = lambda net: lycoris_network(net, algo, layers, kohya, dim, alpha, conv_dim, conv_alpha, train_norm, options)
    torch.manual_seed(0)
    net = Net()
    network = make(net)
    apply(network, net, kohya)
    for key, parameter in network.named_parameters():
        if algo == "full" and not train_norm:
            with torch.no_grad():
                parameter.add_(scale * formula.uniform(f"{name}.{key}", tuple(parameter.shape)))
        else:
            fill(name, key, parameter, scale)
    network.save_weights(str(path), None, {})
    tensors = load_file(path)
    torch.manual_seed(1)
    net2 = Net()
    loaded = make(net2)
    loaded.load_weights(str(path))
    apply(loaded, net2, kohya)

    results, measured, total = {}, {}, 0
    for layer in layers:
        y = net2.get_submodule(layer)(x_of(layer))
        results[layer + ".y"] = y
        total = total + loss_of(layer, y)
        with torch.no_grad():
            measured[f"{layer}: trained and loaded, |dy|"] = distance(net.get_submodule(layer)(x_of(layer)), y)
    total.backward()
    prefix = "lora_unet_" if kohya else "lycoris_"
    for key, parameter in loaded.named_parameters():
        layer = next(layer for layer in layers if key.startswith(prefix + layer + "."))
        if algo == "full" and not train_norm:
            key = {"weight": f"{prefix}{layer}.diff", "bias": f"{prefix}{layer}.diff_b"}[key.split(".")[-1]]
        if key.endswith(".scalar"):
            assert parameter.item() == 1
            continue
        assert key in tensors, (name, key, sorted(tensors))
        results[f"{layer}.grad.{key}"] = parameter.grad
    with torch.no_grad():
        for lora_module, trained in zip(loaded.loras, network.loras):
            layer = lora_module.lora_name.removeprefix(prefix)
            w0, b0 = BASE[layer + ".weight"], BASE[layer + ".bias"]
            weight, bias = lora_module.get_merged_weight(1.0, w0.shape, w0.device)
            if algo in ("loha", "lokr"):  # merges scale twice; get_weight scales once
                results[layer + ".weight_library_merge"] = weight
                weight = w0 + lora_module.get_weight(w0.shape)
                if lora_module.wd:
                    weight = lora_module.apply_weight_decompose(weight)
                measured[f"{layer}: merge against forward, |dW|"] = distance(
                    results[layer + ".weight_library_merge"], weight)
                if name not in ("lycoris_loha", "lycoris_lokr", "lycoris_lokr_dora_out"):  # a few are enough
                    del results[layer + ".weight_library_merge"]
            results[layer + ".weight"] = weight
            if bias is not None:
                results[layer + ".bias"] = bias
            if algo != "full":
                lora_module.multiplier = 0.5
                results[layer + ".y_at_half"] = net2.get_submodule(layer)(x_of(layer))
                if not any(word in options for word in ("use_scalar",)):
                    half = lora_module.get_merged_weight(0.5, w0.shape, w0.device)
                    measured[f"{layer}: merge at 0.5 against forward at 0.5, |dy|"] = distance(
                        plain(layer, half[0], b0 if half[1] is None else half[1]), results[layer + ".y_at_half"])
                lora_module.multiplier = 1.0
    if not kohya:
        note += reading_trouble(path, layers, results)
    config = dict(algo=algo, dim=dim, alpha=alpha, conv_dim=conv_dim or dim, conv_alpha=conv_alpha or alpha,
                  train_norm=train_norm, prefix=prefix, **options)
    record(name, "lycoris", path.name, layers, config, note.strip(), results, measured)


def lycoris_cases():
    twice = "get_merged_weight / merge_to / onfly_merge use (alpha / r)^2; the forward pass uses alpha / r. "
    lycoris_case("locon", "locon", scale=0.4)
    lycoris_case("locon_tucker", "locon", scale=0.5, use_tucker=True)
    lycoris_case("locon_rs", "locon", scale=0.4, rs_lora=True,
                 note="The stored alpha is alpha * sqrt(r), so that alpha / r is right.")
    lycoris_case("locon_scalar", "locon", scale=0.5, use_scalar=True, note="The scalar is folded into lora_up.")
    for out in (True, False):
        axis = ("dora_scale [out, 1, ...]: norm per output row + eps(float), in the gradient" if out else
                "dora_scale [1, in, 1...]: norm per input channel + eps(float), in the gradient")
        side = "out" if out else "in"
        lycoris_case(f"locon_dora_{side}", "locon", scale=0.4, weight_decompose=True, wd_on_out=out, note=axis)
        lycoris_case(f"loha_dora_{side}", "loha", scale=0.9, weight_decompose=True, wd_on_out=out, note=twice + axis)
        lycoris_case(f"lokr_dora_{side}", "lokr", scale=0.8, dim=2, alpha=1.0, factor=2, weight_decompose=True,
                     wd_on_out=out, note=twice + axis)
    lycoris_case("loha", "loha", scale=0.9, note=twice)
    lycoris_case("loha_tucker", "loha", scale=0.7, use_tucker=True, note=twice)
    lycoris_case("loha_rs", "loha", scale=0.8, rs_lora=True, note=twice + "Stored alpha = alpha * sqrt(r).")
    lycoris_case("loha_scalar", "loha", scale=0.9, use_scalar=True, note=twice + "The scalar is folded into w1_a.")
    lokr = dict(dim=2, alpha=1.0, factor=2)
    lycoris_case("lokr", "lokr", scale=0.8, **lokr, note=twice)
    lycoris_case("lokr_tucker", "lokr", scale=0.8, use_tucker=True, **lokr, note=twice)
    lycoris_case("lokr_both", "lokr", scale=0.8, dim=2, alpha=1.0, conv_dim=1, conv_alpha=0.5, decompose_both=True,
                 note=twice + "conv has r 1, alpha 0.5.")
    lycoris_case("lokr_full", "lokr", scale=0.4, full_matrix=True,
                 note="w1 and w2 full: alpha := r, the scale is 1.")
    lycoris_case("lokr_full_rs", "lokr", scale=0.25, full_matrix=True, rs_lora=True,
                 note=twice + "w1 and w2 full with rs_lora: alpha := r, yet scale = r / sqrt(r) = sqrt(r) = 2, stored "
                      "alpha = r sqrt(r) = 8. The file alone does not say r = 4: a reader that takes the scale as 1 "
                      "is off by sqrt(r).")
    lycoris_case("lokr_factor8", "lokr", LINEAR, scale=0.8, dim=2, alpha=1.0, factor=8,
                 note=twice + "m <= n: 40 = 5 * 8, 48 = 6 * 8, w1 is [5, 6].")
    lycoris_case("lokr_unbalanced", "lokr", LINEAR, scale=0.8, unbalanced_factorization=True, **lokr,
                 note=twice + "The two factors of the output are swapped: w1 is [20, 2].")
    lycoris_case("lokr_scalar", "lokr", scale=0.8, use_scalar=True, **lokr, note=twice + "Folded into w1.")
    lycoris_case("full", "full", scale=0.2, note="diff and diff_b.")
    lycoris_case("norm", "locon", ["layer_norm", "group_norm"], scale=0.4, train_norm=True,
                 note="w_norm and b_norm are differences.")
    for side in (False, True):
        lycoris_case("ia3_input" if side else "ia3_output", "ia3", train_on_input=side,
                     note="W' = W0 * (1 + w); the bias stays (PEFT's output IA3 scales it).")
    lycoris_case("glora", "glora", scale=0.45, note="W' = W0 + alpha / r (W0 a1 a2 + b1 b2); conv: a1 a2 mixes input "
                 "channels at every kernel position.")
    lycoris_case("glora_rs", "glora", scale=0.4, rs_lora=True,
                 note="The stored alpha is alpha, not alpha * sqrt(r) as elsewhere: the file does not say that the "
                      "scale was alpha / sqrt(r), a reader is off by sqrt(r).")
    lycoris_case("glora_scalar", "glora", scale=0.5, use_scalar=True, note="The scalar is folded into a2 and b2.")
    oft = " W'_k = R_k^T W0_k on blocks of output rows, R = (I + Q)(I - Q)^-1, Q = M - M^T."
    lycoris_case("diag_oft", "diag-oft", scale=0.2, note="block sizes 4 and 3." + oft)
    lycoris_case("diag_oft_dim8", "diag-oft", LINEAR, scale=0.2, dim=8,
                 note="block size <= number of blocks: dim 8 of 40 makes 8 blocks of 5." + oft)
    lycoris_case("diag_oft_constraint", "diag-oft", scale=0.2, constraint=0.02,
                 note="alpha = constraint = 0.02: |Q|_F of ALL blocks together <= 0.02 * out." + oft)
    lycoris_case("diag_oft_rescaled", "diag-oft", scale=0.2, rescaled=True, note="W' = rescale * (R^T W0)." + oft)
    lycoris_case("diag_oft_loose", "diag-oft", LINEAR, scale=0.05, constraint=0.5, rescaled=True,
                 note="The bound is not reached." + oft)
    boft = (" Stage i: rows (c 2 k) -> (c k 2) with k = 2^i b / 2, blocks of b: W_k := R_k W_k (not transposed), "
            "and back; then rescale. Every stage blends with I at a multiplier.")
    lycoris_case("boft", "boft", scale=0.15, dim=10, note="b 10, 4 blocks, m 3; conv: b 6, 2 blocks, m 2." + boft)
    lycoris_case("boft_constraint", "boft", scale=0.15, dim=10, constraint=0.02,
                 note="|Q|_F of all stages and blocks together <= 0.02 * out." + boft)
    lycoris_case("boft_rescaled", "boft", scale=0.15, dim=10, rescaled=True, note=boft.strip())
    for name, algo, options in (("locon", "locon", {}), ("loha", "loha", dict(scale=0.9)),
                                ("lokr", "lokr", dict(scale=0.8, **lokr)), ("diag_oft", "diag-oft", dict(scale=0.2)),
                                ("glora", "glora", dict(scale=0.45))):
        lycoris_case("kohya_" + name, algo, kohya=True, **options, note="lycoris.kohya, names lora_unet_*")


# diffusers


def diffusers_case(name, save, alpha, note, layers=(Q, OUT, TEXT_Q)):
    name = "diffusers_" + name
    layers = list(layers)
    torch.manual_seed(0)
    model = peft.get_peft_model(Net(), lora(layers, lora_alpha=alpha)).eval()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            fill("diffusers", key.replace(".default", ""), parameter, 0.4)
    state = {key.removeprefix("base_model.model."): value.contiguous()
             for key, value in peft.get_peft_model_state_dict(model).items()}
    unet = {key: value for key, value in state.items() if not key.startswith("text_model")}
    text = {key: value for key, value in state.items() if key.startswith("text_model")}
    with tempfile.TemporaryDirectory() as folder:
        save(folder, unet, text)
        shutil.copyfile(pathlib.Path(folder) / "pytorch_lora_weights.safetensors", DATA / f"{name}.safetensors")
    # what diffusers reads in that file
    read, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(str(DATA / f"{name}.safetensors"))
    read = convert_unet_state_dict_to_peft({key: value for key, value in read.items() if key.startswith("unet.")})
    assert {key.removeprefix("unet."): value.shape for key, value in read.items()} == \
        {key: value.shape for key, value in unet.items()}, (name, sorted(read))
    assert all(torch.equal(read["unet." + key], value) for key, value in unet.items()), name
    results = {}
    with torch.no_grad():
        for layer in layers:
            module = module_at(model, layer)
            results[layer + ".y"] = module(x_of(layer))
            module.merge()
            results[layer + ".weight"] = module.get_base_layer().weight.clone()
    record(name, "diffusers", f"{name}.safetensors", layers, dict(r=4, alpha=alpha, alphas_in_file=alphas or {}),
           f"{TEXT_Q} belongs to the component text_encoder. " + note, results, {})


def diffusers_cases():
    def current(metadata):
        def save(folder, unet, text):
            options = {}
            if metadata:
                config = lora([Q, OUT]).to_dict()
                config["target_modules"] = sorted(config["target_modules"])
                options = dict(unet_lora_adapter_metadata=config, text_encoder_lora_adapter_metadata={
                    **config, "target_modules": [TEXT_Q]})
            StableDiffusionLoraLoaderMixin.save_lora_weights(
                folder, unet_lora_layers=unet, text_encoder_lora_layers=text, **options)
        return save

    def helper(folder, unet, text):
        StableDiffusionLoraLoaderMixin.save_lora_weights(
            folder, unet_lora_layers=convert_state_dict_to_diffusers(unet),
            text_encoder_lora_layers=convert_state_dict_to_diffusers(text))

    def old(folder, unet, text):
        """By hand: no writer of this style is left."""
        tensors = {}
        for key, value in {**unet, **text}.items():
            path, which = key.rsplit(".lora_", 1)
            leaf = {"to_q": "to_q", "to_out.0": "to_out", "q_proj": "to_q"}[
                path.removeprefix(path.split("attn1.")[0].split("self_attn.")[0]).split("attn1.")[-1]
                .split("self_attn.")[-1]]
            parent = path.rsplit("attn1.", 1)[0] + "attn1.processor" if "attn1." in path else path.rsplit(".", 1)[0]
            kind = {"A.weight": "down", "B.weight": "up"}[which]
            component = "text_encoder" if key.startswith("text_model") else "unet"
            tensors[f"{component}.{parent}.{leaf}_lora.{kind}.weight"] = value
        save_file(tensors, folder + "/pytorch_lora_weights.safetensors", {"format": "pt"})

    def kohya(folder, unet, text):
        tensors = convert_state_dict_to_kohya(
            {"unet." + key: value for key, value in unet.items()} |
            {"text_encoder." + key: value for key, value in text.items()})
        save_file({key: value.contiguous() for key, value in tensors.items()},
                  folder + "/pytorch_lora_weights.safetensors", {"format": "pt"})

    diffusers_case("current", current(True), 2, "lora_A / lora_B and r, alpha in lora_adapter_metadata.")
    diffusers_case("current_bare", current(False), 4, "No metadata: alpha = rank, the scale is 1.")
    diffusers_case("helper", helper, 4, "lora.down / lora.up and lora_linear_layer.down / .up; alpha = rank.")
    diffusers_case("processor", old, 4, "attn1.processor.to_q_lora.down, to_out_lora (= to_out.0); text encoder: "
                                        "self_attn.to_q_lora (= q_proj); alpha = rank.")
    diffusers_case("kohya", kohya, 4, "convert_state_dict_to_kohya: lora_unet_*, lora_te1_*, alpha = rank always, "
                                      "whatever lora_alpha was, as int64.")


def main():
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    base = {key: value.detach().clone() for key, value in BASE.items()}
    for layer in INPUTS:
        base[layer + ".x"] = x_of(layer)
        shape = tuple(Net().get_submodule(layer)(x_of(layer)).shape)
        base[layer + ".probe"] = formula.uniform(layer + ".probe", shape)
    save_file(base, DATA / "base.safetensors", {"format": "pt"})
    peft_cases()
    lycoris_cases()
    diffusers_cases()
    (DATA / "cases.json").write_text(json.dumps(dict(
        versions=dict(torch="2.15.0", peft="0.21.2", lycoris="4.1.3", diffusers="0.42.1"), cases=CASES),
        indent=1) + "\n")
    for path in DATA.rglob("*.safetensors"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
