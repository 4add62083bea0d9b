"""Other spellings of an id or a person that are in the run: case, blanks, composed and decomposed accents.

In: an open run and the names in a deletion. Out: retained names with another spelling. They are listed, and never
deleted unless requested: two spellings can be two people. The ledger knows only keyed hashes of names, so likely
spellings are derived from the name and looked up: all lower case, all upper case, each word with or without a capital,
with a blank before or after, in both normal forms. An unusual mixture of cases inside a word is not found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice, product
from typing import Literal

from s3t_ray.run.reports import OtherSpelling
from s3t_ray.run.run import Run

MOST_NAMES = 100
"""Maximum number of names per deletion whose spellings are looked up."""
_MOST_WORDS = 6
_MOST_VARIANTS = 1024
_WORD = re.compile(r"[^\W\d_]+")


def other_spellings(run: Run, ids: Sequence[str], subjects: Sequence[str]) -> tuple[OtherSpelling, ...]:
    """Undeleted records under other spellings of these names, for the first `MOST_NAMES` of each kind."""
    return (*_found(run, "id", ids), *_found(run, "subject", subjects))


def _found(run: Run, kind: Literal["id", "subject"], names: Sequence[str]) -> list[OtherSpelling]:
    asked = set(names)
    tried = {spelling: name for name in names[:MOST_NAMES] for spelling in spellings(name) if spelling not in asked}
    hmacs = run.keys.id_hmacs(list(tried)) if kind == "id" else [run.keys.subject_hmac(each) for each in tried]
    by_hmac = dict(zip(hmacs, tried, strict=True))
    wanted = tuple(by_hmac)
    records = run.ledger.retained(wanted) if kind == "id" else run.ledger.retained((), wanted)
    return [
        OtherSpelling(kind=kind, named=tried[spelling], spelling=spelling, records=records[hmac])
        for hmac, spelling in by_hmac.items()
        if records.get(hmac)
    ]


def spellings(name: str) -> Iterator[str]:
    """Likely other spellings of `name`, each once, without `name` itself. Pure."""
    seen = {name}
    cased = dict.fromkeys(_cased(name.strip()))
    for text in islice(cased, _MOST_VARIANTS // 6):
        for form in ("NFC", "NFD"):
            normal = unicodedata.normalize(form, text)
            for spelling in (normal, f"{normal} ", f" {normal}"):
                if spelling not in seen:
                    seen.add(spelling)
                    yield spelling


def _cased(name: str) -> Iterator[str]:
    """`name` itself, in lower and in upper case, and with each of its first words capitalised or not."""
    yield from (name, name.lower(), name.upper(), name.casefold())
    words = list(islice(_WORD.finditer(name), _MOST_WORDS))
    for lower in (name, name.lower()):
        for capitals in product((True, False), repeat=len(words)):
            letters = list(lower) if len(lower) == len(name) else []
            for word, capital in zip(words, capitals, strict=True):
                if letters:
                    first = letters[word.start()]
                    letters[word.start()] = first.upper() if capital else first.lower()
            if letters:
                yield "".join(letters)
