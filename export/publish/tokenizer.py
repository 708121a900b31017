"""A tokenizer as the files that the libraries of Hugging Face read."""

from __future__ import annotations

import json
from typing import Any

from mobileclip.tokenizer import Tokenizer

START, END, PAD = "<start_of_text>", "<end_of_text>", "<pad>"
# As in open_clip's SimpleTokenizer.
_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def tokenizer_files(tokenizer: Tokenizer, *, causal: bool) -> dict[str, bytes]:
    """Return `tokenizer.json` and `tokenizer_config.json`, which transformers' `AutoTokenizer` reads.

    Texts are padded with the end token, because a causal tower doesn't see what comes after the first. For other
    towers there is a padding token beyond the vocabulary, which OpenCLIP replaces by 0, see `openclip_settings`.

    Args:
        tokenizer: the model's.
        causal: whether its text tower is causal.
    """
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    vocabulary = {**tokenizer.vocabulary, START: tokenizer.sot, END: tokenizer.eot}
    backend = Backend(
        models.BPE(
            vocabulary, list(tokenizer.merges), continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (START, END)])
    backend.post_processor = processors.RobertaProcessing(
        (END, tokenizer.eot), (START, tokenizer.sot), trim_offsets=False, add_prefix_space=False
    )
    special = {"bos_token": START, "eos_token": END, "pad_token": END}
    if not causal:
        backend.add_special_tokens([AddedToken(PAD, special=True, normalized=False)])
        special |= {"pad_token": PAD, "sep_token": PAD}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.context_length,
        "clean_up_tokenization_spaces": False,
        **special,
    }
    return {
        "tokenizer.json": backend.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings, indent=1).encode(),
    }


def openclip_settings(repository: str, *, causal: bool) -> dict[str, Any]:
    """Return the settings of `text_cfg` with which OpenCLIP reads these files instead of its own vocabulary.

    Args:
        repository: where OpenCLIP finds the files if it loads the model from the hub, `USER/NAME`.
        causal: whether the text tower is causal.
    """
    arguments: dict[str, Any] = {"clean": "lower"}
    if not causal:
        arguments["strip_sep_token"] = True  # the separator is the padding token, and becomes 0
    return {"hf_tokenizer_name": repository, "tokenizer_kwargs": arguments}
