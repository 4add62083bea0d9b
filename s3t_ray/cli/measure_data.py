"""How large the data of a config is, for `s3t plan`: records, tokens per record, and the share with a loss.

In: a config. Out: a DataSize. Every record is read and placed as training would (where the run's keys are made);
tokens are counted on a sample, by the base model's tokenizer where its folder is on this machine, else estimated
from characters. Downloads no model, and keeps no record.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from s3t_ray.config.schema import Config, Task
    from s3t_ray.data.balance import Balance
    from s3t_ray.data.chats.token_ids import Tokenizer
    from s3t_ray.data.records import Record
    from s3t_ray.data.seen_texts import Seen
    from s3t_ray.errors import DataError

SAMPLE_RECORDS = 1000
_NAMES_COUNTED = 1_000_000
"""Most records or people for which a better seed is searched: memory would grow with the data."""
CHARACTERS_A_TOKEN = 4
"""An estimate for English text."""

TOKENS_AN_IMAGE = 197
"""Of ViT-base and ViT-large: 14 x 14 patches and the classification token."""


@dataclass(frozen=True)
class DataSize:
    """Size of what training would see."""

    records: int
    """Training records, without held-out ones."""
    held_out: int
    set_aside: int
    """Malformed rows that `data.on_malformed: set_aside` leaves out."""
    tokens_per_record: float
    """Mean, prompt included, cut to task.max_tokens."""
    labelled_share: float
    """Share of tokens that carry loss."""
    sampled: int
    """Records whose tokens were counted."""
    counted_by: Literal["tokenizer", "characters"]
    teaching_nothing: int
    """Training records without a response within task.max_tokens; 0 if there was no tokenizer to check with."""
    balance: Balance
    sizes: list[list[int]]
    """Training records by shard and slice."""
    notes: tuple[str, ...]
    """What was read and skipped, how columns were interpreted, and what is uneven."""


def measure(config: Config, tokenizer: Tokenizer | None = None) -> DataSize:
    """Read the data of `config` once. Raises the DataErrors of training; those of encoding only with a `tokenizer`."""
    from s3t_ray.config.tasks import TASKS
    from s3t_ray.data.balance import better_seed, hashed
    from s3t_ray.data.partition import HOLDOUT, place
    from s3t_ray.data.readers.read import RejectFile, read_holdout, read_records
    from s3t_ray.data.readers.reading import Reading
    from s3t_ray.data.record_check import RecordCheck
    from s3t_ray.data.seen_texts import Seen
    from s3t_ray.data.taught import Taught

    images = TASKS[config.task.kind].architecture == "vision"
    sample: list[str] = []
    random, secret = Random(config.seed), _place_key(config)
    names: Counter[tuple[str, str | None]] = Counter()
    records = held_out = 0
    with RejectFile(Path(os.devnull)) as rejects, Seen() as ids:
        check = None if tokenizer is None else RecordCheck(tokenizer, config.task)
        taught, reading = Taught(config), Reading()
        found = _once(read_records(config.data, config.task, rejects, check, reading), ids, config)
        for spot, record in taught.count((place(each.id, each.subject, config, secret), each) for each in found):
            if len(names) < _NAMES_COUNTED:
                names[hashed(record, config)] += 1
            if spot == HOLDOUT:
                held_out += 1
                continue
            if not (images and sample):  # every image has as many tokens
                _sample(sample, records, record.content, random)
            records += 1
        apart = _once(read_holdout(config.data, config.task, rejects, check, reading), ids, config)
        held_out += sum(1 for _ in taught.count((HOLDOUT, each) for each in apart))
    notes = reading.notes()
    taught.tell(notes.append)
    if secret is not None or config.data.partition_key == "seed":  # else another secret may have them fall otherwise
        taught.check_shards()
    if config.shards * config.slices > 1 and taught.balance.is_uneven:
        # Seeds differ only once the run's secret exists.
        known = len(names) < _NAMES_COUNTED and (secret is not None or config.data.partition_key == "seed")
        found_seed = better_seed(names, config, secret) if known else None
        if found_seed is not None:
            seed, better = found_seed
            notes.append(
                f"seed: {seed} would make the largest shard {better.unevenness:.2f} times the mean, with "
                f"{better.empty_slices:,} empty slices"
            )
    if config.data.partition_key == "secret" and secret is None:
        notes.append(
            "which slice each record falls in depends on the run's secret, which does not exist yet: this partition is "
            "an example"
        )
    counted_by: Literal["tokenizer", "characters"] = "characters" if tokenizer is None else "tokenizer"
    tokens, labelled = _count(sample, tokenizer or _estimating(config), config.task)
    return DataSize(
        records=records,
        held_out=held_out,
        set_aside=rejects.count,
        tokens_per_record=tokens / max(len(sample), 1),
        labelled_share=labelled / max(tokens, 1),
        sampled=len(sample),
        counted_by=counted_by,
        teaching_nothing=taught.nothing,
        balance=taught.balance,
        sizes=taught.sizes,
        notes=tuple(notes),
    )


def _once(records: Iterable[Record], ids: Seen, config: Config) -> Iterator[Record]:
    """`records`, unchanged. DataError: an id is repeated, which the ledger would also refuse."""
    for record in records:
        if not ids.add(record.id):
            raise _repeated(record.id, config)
        yield record


def _repeated(name: str, config: Config) -> DataError:
    from s3t_ray.data.readers.read import RejectFile, read_holdout, read_records
    from s3t_ray.data.readers.reading import Reading
    from s3t_ray.data.readers.repeated_ids import find_repeated
    from s3t_ray.errors import DataError

    data, reading = config.data, Reading()
    with RejectFile(Path(os.devnull)) as rejects:
        records = chain(
            read_records(data, config.task, rejects, None, reading),
            read_holdout(data, config.task, rejects, None, reading),
        )
        found = find_repeated(name.__eq__, records, reading, data)
    return found or DataError(f"id {name!r} is in more than one record of {data.path}", "give every record its own id")


def _place_key(config: Config) -> bytes | None:
    """The key of the run's partition, if the run's keys exist and can be read; None: only the seed."""
    from s3t_ray.config.location import locate
    from s3t_ray.errors import ConfigError, LedgerError
    from s3t_ray.ledger.keys import Keys

    if config.data.partition_key == "seed":
        return None
    try:
        return Keys.load(locate(config).keys_dir).place_key
    except (ConfigError, LedgerError):  # `s3t train` says what is wrong with them
        return None


def _estimating(config: Config) -> Any:
    """Replaces the reader of a base that is not on this machine."""
    from s3t_ray.config.tasks import TASKS

    if TASKS[config.task.kind].architecture != "vision":
        return EstimatingTokenizer()
    positions = config.model.shape.positions if config.model.shape is not None else None
    return EstimatingTransform(positions or TOKENS_AN_IMAGE)


@dataclass(frozen=True)
class EstimatingTransform:
    """Replaces the transform of a vision model that is not on this machine: every image has `tokens` tokens."""

    tokens: int


class EstimatingTokenizer:
    """Replaces a tokenizer that is not on this machine: one token per 4 characters."""

    bos_token_id: int | None = 1
    eos_token_id: int | None = 2
    unk_token_id: int | None = None
    chat_template: Any = "<role>content</>, a line a message"

    def __call__(self, text: str, **options: Any) -> Mapping[str, list[int]]:
        ids = [0] * -(-len(text) // CHARACTERS_A_TOKEN)
        if options.get("add_special_tokens", True):
            ids = [1, *ids]
        return {"input_ids": ids[: options.get("max_length")]}

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> str:
        text = "".join(f"<{message['role']}>{message['content']}</>\n" for message in conversation)
        return text + "<assistant>" if options.get("add_generation_prompt") else text


def _sample(sample: list[str], seen: int, content: str, random: Random) -> None:
    """Reservoir sampling: after any number of records, each is in `sample` with the same chance."""
    if seen < SAMPLE_RECORDS:
        sample.append(content)
    elif (slot := random.randrange(seen + 1)) < SAMPLE_RECORDS:
        sample[slot] = content


def _count(sample: Iterable[str], tokenizer: Tokenizer, task: Task) -> tuple[int, int]:
    """Tokens, and tokens with a loss, in the sampled records. A record with a single label has one loss."""
    tokens = labelled = 0
    for size, learned in _sizes(sample, tokenizer, task):
        tokens += size
        labelled += learned
    return tokens, labelled


def _sizes(sample: Iterable[str], tokenizer: Tokenizer, task: Task) -> Iterator[tuple[int, int]]:
    from s3t_ray.data.readers.inputs import TeachesNothing, encode

    for content in sample:
        try:
            example = encode(content, tokenizer, task)
        except TeachesNothing:  # training skips it
            yield task.max_tokens, 0
            continue
        yield len(example.input_ids), example.learned
