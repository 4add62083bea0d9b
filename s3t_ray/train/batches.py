"""Which records make an optimizer step, and which records a rank packs into one forward pass.

Pure, no torch, so that it is tested by the thousand. In: record ids, lengths in tokens. Out: indices. Invariants,
each with a test: a step's records do not depend on how many ranks or micro-batches there are; every record of a
step falls in exactly one micro-batch; every rank gets equally many micro-batches (some may be empty), because
collectives must match; a micro-batch stays within its tokens unless it is one long record alone; removing a record
from an epoch leaves the order of the others alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from s3t_ray.train.seeds import StagePlace


def epoch_order(record_ids: Sequence[str], place: StagePlace, epoch: int) -> list[int]:
    """Indices into `record_ids` in the order of this epoch; the order of the input does not matter."""
    return sorted(range(len(record_ids)), key=lambda index: (place.order(epoch, record_ids[index]), record_ids[index]))


def steps_in_epoch(records: int, batch_records: int) -> int:
    """Optimizer steps of one epoch; the last may be smaller."""
    return -(-records // batch_records)


def pack(lengths: Sequence[int], micro_batch_tokens: int, ranks: int) -> list[list[list[int]]]:
    """Spread the records of one step over ranks and micro-batches: `[rank][micro_batch] -> indices`.

    Longest first into the lightest micro-batch (ties: the first), with the fewest micro-batches a rank that keep
    each within `micro_batch_tokens`; a record longer than that goes alone. Balanced, so ranks wait little for
    each other; inside a micro-batch records keep their order in the step.
    """
    by_length = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    per_rank = max(1, -(-sum(lengths) // (micro_batch_tokens * ranks)))
    bins = _spread(by_length, lengths, per_rank * ranks)
    while not _fits(bins, lengths, micro_batch_tokens):
        per_rank += 1
        bins = _spread(by_length, lengths, per_rank * ranks)
    return [[sorted(bins[position * ranks + rank]) for position in range(per_rank)] for rank in range(ranks)]


def pad_groups(lengths: Sequence[int], micro_batch_tokens: int, ranks: int) -> list[list[list[int]]]:
    """Like `pack`, for models whose attention looks both ways: a micro-batch is a padded rectangle.

    Records of like length go together; records x longest stays within `micro_batch_tokens`.
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
