"""PEFT's adapters of GPT-2 and BERT, in ringlet and back: are the merged weights PEFT's?

    python check_peft_networks.py RINGLET WORK

For every case PEFT adapts a tiny network of transformers with random numbers and saves the adapter. `ringlet merge`
merges it into the network's bare .safetensors file, which must hold what PEFT's merge_and_unload() makes. Then
`ringlet convert --to peft` writes it again, and PEFT loads that and merges: the same weights once more. Prints
max |difference| / max |change| of both; the exit status is 1 where one is above 1e-5.
Pinned: torch 2.15.0, transformers 5.23.0, peft 0.21.2.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-5
ATTENTION, FEEDFORWARD = ["c_attn"], ["c_attn", "c_fc", "c_proj"]


def gpt2(tied=True):
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=40, n_positions=16, n_embd=16, n_layer=3, n_head=2, bos_token_id=0, eos_token_id=0,
        tie_word_embeddings=tied))


def gpt2_untied():
    """PEFT saves the base weight of its head beside the adapter, which a tied one would share with the table."""
    return gpt2(tied=False)


def bert():
    return transformers.BertForSequenceClassification(transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16))


CASES = {
    "gpt2 LoRA": (gpt2, peft.LoraConfig(r=4, lora_alpha=6, target_modules=FEEDFORWARD)),
    "gpt2 LoRA, patterns": (gpt2, peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=FEEDFORWARD, rank_pattern={"h.0.*c_attn": 2},
        alpha_pattern={"z": 9, "mlp.c_.*": 3, "c_fc": 5, "h.1..*": 7})),
    "gpt2 rsLoRA, head too": (gpt2_untied, peft.LoraConfig(r=4, use_rslora=True, target_modules=["c_attn", "lm_head"])),
    "gpt2 LoRA, tables": (gpt2, peft.LoraConfig(r=4, lora_alpha=6, target_modules=["wpe", "c_attn"])),
    "gpt2 DoRA": (gpt2, peft.LoraConfig(r=4, use_dora=True, target_modules=FEEDFORWARD)),
    "gpt2 PiSSA": (gpt2, peft.LoraConfig(r=4, init_lora_weights="pissa", target_modules=ATTENTION)),
    "gpt2 AdaLoRA": (gpt2, peft.AdaLoraConfig(init_r=4, total_step=10, target_modules=ATTENTION)),
    "gpt2 IA3": (gpt2, peft.IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"])),
    "gpt2 VeRA": (gpt2, peft.VeraConfig(r=8, target_modules=ATTENTION)),
    "gpt2 FourierFT": (gpt2, peft.FourierFTConfig(n_frequency=20, target_modules=ATTENTION)),
    "bert LoRA with its head": (bert, peft.LoraConfig(r=4, task_type="SEQ_CLS", target_modules=["query", "value"])),
    "bert LoRA, tables": (bert, peft.LoraConfig(r=4, target_modules=["word_embeddings", "query"])),
    "bert DoRA": (bert, peft.LoraConfig(r=4, use_dora=True, target_modules=["query", "output.dense"])),
    "bert LoHa": (bert, peft.LoHaConfig(r=4, alpha=6, target_modules=["query", "value"])),
    "bert LoKr": (bert, peft.LoKrConfig(r=2, alpha=6, target_modules=["query", "value"])),
    "bert OFT": (bert, peft.OFTConfig(r=0, oft_block_size=4, target_modules=["query", "value"])),
    "bert HRA": (bert, peft.HRAConfig(r=4, target_modules=["query", "value"])),
    "bert IA3": (bert, peft.IA3Config(target_modules=["query", "output.dense"], feedforward_modules=["output.dense"])),
}
# PEFT's files have no form for the difference that a whole saved layer becomes.
NOT_WRITTEN = {"bert LoRA with its head"}


def disturb(model):
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        special = any(word in name for word in ("lora_", "hada_", "lokr_", "oft_", "hra_", "ia3_", "vera_lambda",
                                                "fourierft", "modules_to_save"))
        if special and parameter.is_floating_point():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def fresh(build):
    torch.manual_seed(1)
    return build().eval()


def merged_by_peft(build, folder):
    model = peft.PeftModel.from_pretrained(fresh(build), str(folder)).eval().merge_and_unload()
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def distance(actual, expected, before):
    change = max((expected[name] - before[name]).abs().max().item() for name in actual)
    return max((actual[name] - expected[name]).abs().max().item() for name in actual) / change


def main():
    ringlet, work = sys.argv[1], pathlib.Path(sys.argv[2])
    good = True
    for name, (build, config) in CASES.items():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        model = peft.get_peft_model(fresh(build), config)
        disturb(model)
        model.save_pretrained(str(work / "adapter"))
        before = {key: value.detach().clone() for key, value in fresh(build).state_dict().items()}
        expected = merged_by_peft(build, work / "adapter")
        base = {key: value for key, value in before.items() if build is not gpt2 or key != "lm_head.weight"}
        save_file(base, work / "base.safetensors")
        common = ["--model", work / "base.safetensors", "--adapter", work / "adapter", "--quiet"]
        subprocess.run([ringlet, "merge", *common, "--out", work / "merged.safetensors"], check=True,
                       stdout=subprocess.DEVNULL)
        merged = distance(load_file(work / "merged.safetensors"), expected, before)
        again = 0.0
        if name not in NOT_WRITTEN:
            subprocess.run([ringlet, "convert", *common, "--to", "peft", "--out", work / "again"], check=True,
                           stdout=subprocess.DEVNULL)
            written = merged_by_peft(build, work / "again")
            again = distance({key: written[key] for key in base}, expected, before)
        good = good and merged <= TOLERANCE and again <= TOLERANCE
        print(f"{name:26} merged {merged:.1e}  written and loaded again {again:.1e}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
