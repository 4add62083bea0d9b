"""Assigns records to optimizer steps, and packs the records of a step into micro-batches per rank.

Pure and without torch, so that property tests are cheap. In: record ids, lengths in tokens. Out: indices.
Invariants, each with a test:
- the records of a step do not depend on the number of ranks or micro-batches;
- every record of a step is in exactly one micro-batch;
- every rank gets the same number of micro-batches (some may be empty), because collectives must match;
- a micro-batch stays within its token limit unless it holds a single longer record;
- removing a record from an epoch does not reorder the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from s3t_ray.train.seeds import StagePlace


def epoch_order(record_ids: Sequence[str], place: StagePlace, epoch: int) -> list[int]:
    """Indices into `record_ids` in the order of this epoch. The order of the input does not matter."""
    return sorted(range(len(record_ids)), key=lambda index: (place.order(epoch, record_ids[index]), record_ids[index]))


def steps_in_epoch(records: int, batch_records: int) -> int:
    """The number of optimizer steps per epoch. The last may have fewer records."""
    return -(-records // batch_records)


def pack(lengths: Sequence[int], micro_batch_tokens: int, ranks: int) -> list[list[list[int]]]:
    """Spread the records of one step over ranks and micro-batches: `[rank][micro_batch] -> indices`.

    Greedy: the longest record goes first, into the micro-batch with the fewest tokens (ties: the first). Uses the
    smallest number of micro-batches per rank that keeps each within `micro_batch_tokens`; a longer record gets a
    micro-batch of its own. The load is balanced, so ranks rarely wait for each other. Within a micro-batch, records
    keep the order of the step.
    """
    by_length = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    per_rank = max(1, -(-sum(lengths) // (micro_batch_tokens * ranks)))
    bins = _spread(by_length, lengths, per_rank * ranks)
    while not _fits(bins, lengths, micro_batch_tokens):
        per_rank += 1
        bins = _spread(by_length, lengths, per_rank * ranks)
    return [[sorted(bins[position * ranks + rank]) for position in range(per_rank)] for rank in range(ranks)]


def pad_groups(lengths: Sequence[int], micro_batch_tokens: int, ranks: int) -> list[list[list[int]]]:
    """Like `pack`, for padded micro-batches of models with bidirectional attention.

    Groups records of similar length. Records x longest stays within `micro_batch_tokens`.
    """
    by_length = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    bins: list[list[int]] = []
    for index in by_length:
        longest = lengths[bins[-1][0]] if bins else 0
        if bins and (len(bins[-1]) + 1) * longest <= micro_batch_tokens:
            bins[-1].append(index)
        else:
            bins.append([index])
    per_rank = max(1, -(-len(bins) // ranks))
    bins += [[] for _ in range(per_rank * ranks - len(bins))]
    return [[sorted(bins[position * ranks + rank]) for position in range(per_rank)] for rank in range(ranks)]


def _spread(by_length: Sequence[int], lengths: Sequence[int], count: int) -> list[list[int]]:
    bins: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for index in by_length:
        lightest = loads.index(min(loads))
        bins[lightest].append(index)
        loads[lightest] += lengths[index]
    return bins


def _fits(bins: Sequence[Sequence[int]], lengths: Sequence[int], limit: int) -> bool:
    return all(len(group) <= 1 or sum(lengths[index] for index in group) <= limit for group in bins)
