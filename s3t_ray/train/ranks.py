"""Joins the ranks of a worker group, and provides the few collectives that the engine needs.

In: rank, world size and the rendezvous address. Out: a Group. A process belongs to one group for its lifetime. Never
sends pickled data to another rank.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from dataclasses import dataclass

import torch
import torch.distributed as dist

from s3t_ray.errors import TrainError
from s3t_ray.train.gpu_driver import driver_version, why_no_gpu


@dataclass(frozen=True)
class Group:
    """One rank's view of its worker group. Every rank must make the same calls in the same order."""

    rank: int
    world: int
    device: torch.device

    def sum(self, value: float) -> float:
        """The sum over all ranks (float64). Blocks until every rank calls it."""
        if self.world == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(total)
        return float(total)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank. Blocks until every rank calls it."""
        return self.sum(float(flag)) > 0

    def gather(self, data: bytes) -> list[bytes]:
        """The data of all ranks in rank order. All must have the same length. Blocks until every rank calls it."""
        if self.world == 1:
            return [data]
        mine = torch.tensor(list(data), dtype=torch.uint8)
        parts = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(parts, mine)
        return [bytes(part.tolist()) for part in parts]


def join(rank: int, world: int, init_method: str | None, gpus: int) -> Group:
    """Join the worker group, once per process. A group of one rank needs no address. Raises TrainError on failure."""
    device = _device(gpus)
    if dist.is_initialized():
        if (dist.get_rank(), dist.get_world_size()) != (rank, world):
            raise TrainError(
                f"this process is rank {dist.get_rank()} of {dist.get_world_size()} and cannot be {rank} of {world}",
                "start a new process for another worker group",
            )
        return Group(rank, world, device)
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    if world == 1:
        dist.init_process_group(backend, store=_lone_store(device), rank=0, world_size=1)
    elif init_method is None:
        raise TrainError(f"a worker group of {world} ranks needs a rendezvous address", "pass init_method")
    else:
        dist.init_process_group(backend, init_method=init_method, rank=rank, world_size=world)
    return Group(rank, world, device)


def _lone_store(device: torch.device) -> dist.Store:
    """A rendezvous store for a group of one rank, without a port. NCCL needs a file, deleted when the process exits."""
    if device.type == "cpu":
        return dist.HashStore()
    folder = tempfile.TemporaryDirectory(prefix="s3t-group-")
    atexit.register(folder.cleanup)
    return dist.FileStore(f"{folder.name}/meeting", 1)


def make_deterministic(threads: int) -> None:
    """Make torch give the same bits for the same inputs on this platform. Call it in the training thread."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # transformers requests the deterministic backward pass of flash_attention_2 only if this is set.
    os.environ["FLASH_ATTENTION_DETERMINISTIC"] = "1"
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Otherwise torch fills every new tensor, to make reads of uninitialized memory repeatable: 1.4% of a stage.
    torch.utils.deterministic.fill_uninitialized_memory = False
    # TF32 would silently lower the precision of float32 products.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


def _device(gpus: int) -> torch.device:
    """torch's current GPU, or the CPU if the run requests no GPU. Raises TrainError if torch sees no GPU."""
    # DS_ACCELERATOR=cpu on a node overrides the GPU reservation, because Ray's GPUs can be logical.
    if gpus == 0 or os.environ.get("DS_ACCELERATOR") == "cpu":
        # DeepSpeed would use any GPU that it sees, even if this run requested none.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        os.environ.setdefault("LOCAL_RANK", "0")
        return torch.device("cpu")
    if not torch.cuda.is_available():
        problem, fix = why_no_gpu(
            torch.__version__, torch.version.cuda, driver_version(), os.environ.get("CUDA_VISIBLE_DEVICES")
        )
        raise TrainError(f"workers.gpus_per_rank is {gpus}, but {problem}", fix)
    device = torch.device("cuda", torch.cuda.current_device())
    os.environ.setdefault("LOCAL_RANK", str(device.index))  # DeepSpeed reads its GPU index from here
    return device
