"""The model folder that training starts from: configuration files and a tokenizer, no weights."""

import json
import re
from collections import Counter, defaultdict

MAX_TOKENS = 16  # a caption with its start and end
MAX_VOCABULARY = 3800  # keeps the whole model under 24.5 MB in fp16
START, END = "<|startoftext|>", "<|endoftext|>"
# How CLIP cuts text into words, for ASCII.
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


def byte_symbols():
    """The printable character that stands for each byte, in CLIP's order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]


def merge_word(symbols, pair):
    """The word with each occurrence of the pair made one symbol."""
    merged, place = [], 0
    while place < len(symbols):
        if tuple(symbols[place:place + 2]) == pair:
            merged.append(pair[0] + pair[1])
            place += 2
        else:
            merged.append(symbols[place])
            place += 1
    return merged


def learn_merges(texts, limit):
    """Byte-pair encoding: the most frequent pair first, until every word is one token."""
    counts = Counter(word for text in texts for word in WORDS.findall(text))
    words = {word: [*word[:-1], word[-1] + "</w>"] for word in counts}
    frequency, where = Counter(), defaultdict(set)

    def count_pairs(word, sign):
        for pair in zip(words[word], words[word][1:]):
            frequency[pair] += sign * counts[word]
            where[pair].add(word)

    for word in words:
        count_pairs(word, 1)
    merges, made = [], set()
    while len(made) < limit:
        pair = max(frequency, key=lambda candidate: (frequency[candidate], candidate))
        if frequency[pair] <= 0:
            break
        merges.append(pair)
        made.add(pair[0] + pair[1])
        for word in sorted(where[pair]):
            count_pairs(word, -1)
            words[word] = merge_word(words[word], pair)
            count_pairs(word, 1)
        del frequency[pair]
    return merges, words


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_tokenizer(folder, texts):
    """Writes CLIP's tokenizer files. Returns (vocabulary size, words by their tokens)."""
    symbols = byte_symbols()
    tokens = symbols + [symbol + "</w>" for symbol in symbols]
    merges, words = learn_merges(texts, MAX_VOCABULARY - len(tokens) - 2)
    tokens += [left + right for left, right in merges] + [START, END]
    tokens = list(dict.fromkeys(tokens))
    write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS,
        "do_lower_case": True, "add_prefix_space": False, "errors": "replace", **special})
    return len(tokens), words


def vae_config():
    return {
        "_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [16, 32, 64, 96], "layers_per_block": 1, "latent_channels": 4,
        "norm_num_groups": 8, "act_fn": "silu", "sample_size": 128, "scaling_factor": 1.0}


def unet_config():
    return {
        "_class_name": "UNet2DConditionModel", "sample_size": 16,
        "in_channels": 4, "out_channels": 4,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D"] * 3,
        "block_out_channels": [64, 128, 160], "layers_per_block": 1,
        # For this class, the number of heads of each level: 32 channels a head.
        "attention_head_dim": [2, 4, 5],
        "cross_attention_dim": 160, "norm_num_groups": 32, "norm_eps": 1e-05, "act_fn": "silu",
        "flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1,
        "use_linear_projection": False}


def text_config(vocabulary_size):
    return {
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model",
        "vocab_size": vocabulary_size, "hidden_size": 160, "intermediate_size": 640,
        "num_hidden_layers": 3, "num_attention_heads": 5, "max_position_embeddings": MAX_TOKENS,
        "hidden_act": "quick_gelu", "layer_norm_eps": 1e-05, "projection_dim": 160,
        "bos_token_id": vocabulary_size - 2, "eos_token_id": vocabulary_size - 1,
        "pad_token_id": vocabulary_size - 1}


def scheduler_config():
    return {
        "_class_name": "DDIMScheduler", "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
        "prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": False,
        "steps_offset": 1, "timestep_spacing": "trailing", "rescale_betas_zero_snr": False}


def write_init_folder(folder, captions, texts):
    """Writes the whole folder; the texts teach the tokenizer every word of the captions.

    Returns (longest caption, its tokens).
    """
    size, pieces = write_tokenizer(folder / "tokenizer", texts)
    write_json(folder / "vae/config.json", vae_config())
    write_json(folder / "unet/config.json", unet_config())
    write_json(folder / "text_encoder/config.json", text_config(size))
    write_json(folder / "scheduler/scheduler_config.json", scheduler_config())
    write_json(folder / "model_index.json", {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None], "feature_extractor": [None, None],
        "requires_safety_checker": False})

    def length(caption):
        return 2 + sum(len(pieces[word]) for word in WORDS.findall(caption))

    longest = max(sorted(captions), key=length)
    if length(longest) > MAX_TOKENS:
        raise SystemExit(f"'{longest}' takes {length(longest)} tokens of {MAX_TOKENS}")
    split = sum(len(parts) > 1 for parts in pieces.values())
    print(f"tokenizer: {size} tokens; of {len(pieces)} words {len(pieces) - split} are one token")
    return longest, length(longest)
