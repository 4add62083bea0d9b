"""Three real tokenizers, trained on a few words: byte-level BPE, SentencePiece (Unigram) and Metaspace BPE.

The last two spell `</s>` in their vocabularies and reach it from plain text, as converted SentencePiece models do.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<s>", "</s>", "<unk>"]
TEXT = ["the answer of the question is the text below", "user assistant system Hello Hi A B Q"]
TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + '\n' + message['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
KINDS = ("bpe", "unigram", "metaspace")


def tokenizer_of(kind: str, template: str = TEMPLATE) -> Any:
    """A fast tokenizer of `kind` with a chat template."""
    backend = {"bpe": _bpe, "unigram": _unigram, "metaspace": _metaspace}[kind]()
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = template
    return made


def _bpe() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False, min_frequency=1
        ),
    )
    return made


def _letters() -> list[str]:
    return ["▁", *(chr(code) for code in range(33, 127)), "\n"]


def _unigram() -> Tokenizer:
    pieces = [(name, 0.0) for name in SPECIAL] + [(letter, -5.0) for letter in _letters()] + [("▁the", -2.0)]
    made = Tokenizer(models.Unigram(pieces, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    return made


def _metaspace() -> Tokenizer:
    names = [*SPECIAL, *_letters(), "</", "s>", "th"]
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("t", "h")]
    made = Tokenizer(models.BPE(vocab={name: at for at, name in enumerate(names)}, merges=merges, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return made
