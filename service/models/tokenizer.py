"""A model folder's tokenizer as one ``tokenizers`` JSON, padded to the model's length; all that a worker needs."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from service.errors import SetupError

CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
"""CLIP's word pattern (Radford et al. 2021)."""


def load_tokenizer(folder: Path, positions: int) -> Tokenizer:
    """The tokenizer in ``folder``, padding to ``positions`` but never truncating.

    Reads ``tokenizer.json``, or the ``vocab.json`` and ``merges.txt`` of a CLIP tokenizer. Raises SetupError.
    """
    try:
        if (folder / "tokenizer.json").exists():
            tokenizer = Tokenizer.from_buffer((folder / "tokenizer.json").read_bytes())
        else:
            tokenizer = clip_tokenizer(folder)
        pad = pad_token(folder, tokenizer)
    except Exception as error:  # the tokenizers library raises plain Exception for a broken file
        raise SetupError(f"{folder}: no usable tokenizer ({error})") from error
    tokenizer.no_truncation()
    pad_id = tokenizer.token_to_id(pad)
    if pad_id is None:
        raise SetupError(f"{folder}: the pad token {pad!r} is not in the vocabulary")
    tokenizer.enable_padding(length=positions, pad_id=pad_id, pad_token=pad)
    return tokenizer


def clip_tokenizer(folder: Path) -> Tokenizer:
    """CLIP's lower-cased byte-level BPE, from the files that slow CLIP tokenizers are saved as."""
    vocabulary = json.loads((folder / "vocab.json").read_bytes())
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [(a, b) for a, _, b in (line.partition(" ") for line in lines) if b and not a.startswith("#version")]
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=end)
    )
    tokenizer.add_special_tokens([start, end])  # written out in a prompt they are tokens too, as in CLIP's code
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, vocabulary[end]), (start, vocabulary[start]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def pad_token(folder: Path, tokenizer: Tokenizer) -> str:
    """The padding token that the folder names; the token of id 0 (VQ-Diffusion's choice) when it names none."""
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.exists() and (pad := json.loads(path.read_bytes()).get("pad_token")):
            return str(pad["content"] if isinstance(pad, dict) else pad)
    return str(tokenizer.id_to_token(0))
