"""The ranks of a worker group: joining them, and the few collectives the engine needs itself.

In: rank, world size and the address where they meet. Out: sums over ranks. One process belongs to one group for
life. Never pickles anything to another rank.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist

from s3t_ray.errors import TrainError


def use_device(gpus: int) -> torch.device:
    """The device of this rank (torch's current GPU); TrainError if a GPU is asked for and there is none."""
    if gpus == 0:
        # DeepSpeed would take a GPU it sees although this run asked for none.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        os.environ.setdefault("LOCAL_RANK", "0")
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrainError(f"workers.gpus_per_rank is {gpus} but torch sees no GPU", "set it to 0, or fix the driver")
    device = torch.device("cuda", torch.cuda.current_device())
    os.environ.setdefault("LOCAL_RANK", str(device.index))  # DeepSpeed takes the index of its GPU from there
    return device


def make_deterministic(threads: int) -> None:
    """Same bits from the same inputs, on this platform. Call it in the thread that trains."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # TF32 would silently lower the precision of float32 products.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


def join(rank: int, world: int, init_method: str | None, device: torch.device) -> None:
    """Join the worker group (once a process). A group of one needs no address."""
    if dist.is_initialized():
        if dist.get_world_size() != world or dist.get_rank() != rank:
            raise TrainError(
                f"this process is rank {dist.get_rank()} of {dist.get_world_size()}, asked to be {rank} of {world}",
                "start a new process for another worker group",
            )
        return
    if world > 1 and init_method is None:
        raise TrainError(f"a worker group of {world} ranks needs an address to meet", "pass init_method")
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    if init_method is None:
        dist.init_process_group(backend, store=dist.HashStore(), rank=rank, world_size=world)
    else:
        dist.init_process_group(backend, init_method=init_method, rank=rank, world_size=world)


def sum_over_ranks(values: Sequence[float]) -> list[float]:
    """Element-wise float64 sum over all ranks; a rank waits here for the others."""
    total = torch.tensor(values, dtype=torch.float64)
    if dist.get_world_size() > 1:
        dist.all_reduce(total)
    result: list[float] = total.tolist()
    return result


def gather_digests(digest: bytes) -> list[bytes]:
    """The digests (of equal length) of all ranks, in rank order."""
    mine = torch.tensor(list(digest), dtype=torch.uint8)
    world = dist.get_world_size()
    if world == 1:
        return [digest]
    parts = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(parts, mine)
    return [bytes(part.tolist()) for part in parts]
