"""Runs one DeepSpeed engine per stage and removes every trace of it afterwards.

In: the trainable parameters and a function from micro-batch to loss. Out: optimizer steps, and finally the complete
trained tensors. Up to ZeRO 2, DeepSpeed sees only the trainable parameters, through a wrapper created for this stage:
the frozen base keeps its dtype and device, and the hooks that `destroy` leaves on the module go away with the wrapper.
ZeRO 3 must see the base to partition it over the ranks. This module then removes what the engine leaves on the base
and in DeepSpeed's globals; otherwise old engines would accumulate with their optimizer state.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import deepspeed
import deepspeed.comm
import torch
from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from deepspeed.utils import logger as deepspeed_logger
from torch import Tensor, nn

from s3t_ray.config.schema import Config
from s3t_ray.train.forward import Packed, Padded
from s3t_ray.train.zero3_gather import whole

Batch = Packed | Padded

# A private DeepSpeed method with an unbounded cache: its keys reference coordinators, which reference engines.
_PARAMETERS_TO_RELEASE = inspect.getclosurevars(
    vars(PartitionedParameterCoordinator)["_PartitionedParameterCoordinator__params_to_release"]
).nonlocals["func"]


class _Wrapper(nn.Module):
    """The module given to DeepSpeed: the parameters that it may see, with `compute` as its forward."""

    def __init__(self, seen: nn.Module, compute: Callable[[Any], Any]) -> None:
        super().__init__()
        self.seen = seen
        self._compute = compute

    def forward(self, batch: Batch) -> Any:
        return self._compute(batch)


@contextmanager
def _engine(
    model: nn.Module, wrapper: _Wrapper, parameters: list[nn.Parameter], config: dict[str, Any]
) -> Iterator[Any]:
    """A DeepSpeed engine. On exit, nothing of it remains on `model` or in DeepSpeed's globals."""
    _silence_deepspeed()
    engine, *_ = deepspeed.initialize(
        model=wrapper, model_parameters=parameters, config=config, dist_init_required=False
    )
    try:
        yield engine
    finally:
        engine.destroy()
        for module in model.modules():
            # ZeRO 3 records the parameters that a module uses, and would gather those of old stages on every pass.
            vars(module).get("_external_params", {}).clear()
        # ZeRO 3 keeps every engine alive in these globals, with its optimizer state.
        FWD_MODULE_STACK.clear()
        _PARAMETERS_TO_RELEASE.cache_clear()


@contextmanager
def inference(model: nn.Module, compute: Callable[[Packed], Any], config: Config) -> Iterator[Callable[[Packed], Any]]:
    """`compute` on the base without adapters or gradients; with ZeRO 3, on a base partitioned over the ranks."""
    with torch.no_grad():
        if config.engine.zero_stage < 3:
            yield compute
            return
        with _engine(
            model,
            _Wrapper(model, compute),
            [],
            {
                "train_micro_batch_size_per_gpu": 1,
                "zero_optimization": _zero_config(config, model, 0),
            },
        ) as engine:
            yield engine


class StageEngine:
    """The optimizer of one stage."""

    def __init__(self, engine: Any, trainable: Mapping[str, nn.Parameter]) -> None:
        self._engine = engine
        self._trainable = trainable

    def step(self, batches: Iterable[Batch], scale: float, learning_rate: float) -> float:
        """Take one optimizer step over this rank's micro-batches; it minimizes scale x their summed loss.

        Returns this rank's summed loss, unscaled. DeepSpeed averages gradients over ranks, so pass
        ranks / labelled tokens of the step as `scale` to get the mean over all labelled tokens.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        total: Tensor | float = 0.0
        for batch in batches:
            loss = self._engine(batch)
            self._engine.backward(loss * scale)
            total = total + loss.detach()
        self._engine.step()
        return float(total)

    def state(self) -> dict[str, Tensor]:
        """This rank's part of all state that the next step needs: weights, master weights, optimizer state."""
        found = {f"weight/{name}": _held(value) for name, value in self._trainable.items()}
        for index, master in enumerate(self._masters()):
            found[f"master/{index}"] = master
            for key, value in self._torch_optimizer().state[master].items():
                found[f"{key}/{index}"] = value
        return {name: value.detach().to("cpu", copy=True) for name, value in found.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore a `state` of this rank exactly."""
        with torch.no_grad():
            for name, value in self._trainable.items():
                _held(value).copy_(tensors[f"weight/{name}"])
            for index, master in enumerate(self._masters()):
                master.copy_(tensors[f"master/{index}"])
                state = self._torch_optimizer().state[master]
                for key in _optimizer_keys(tensors, index):
                    value = tensors[f"{key}/{index}"]
                    state[key] = value.clone() if key == "step" else value.to(master.device, copy=True)

    def _torch_optimizer(self) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = getattr(self._engine.optimizer, "optimizer", self._engine.optimizer)
        return optimizer

    def _masters(self) -> list[Tensor]:
        """The tensors that AdamW updates: the parameters, or with ZeRO this rank's flat partition of them."""
        if self._engine.zero_optimization_stage() == 3:
            masters: list[Tensor] = self._engine.optimizer.fp32_partitioned_groups_flat
            return masters
        return [master for group in self._torch_optimizer().param_groups for master in group["params"]]

    def tensors(self) -> dict[str, Tensor]:
        """Complete copies of the trainable parameters on the CPU, gathered from all ranks (every rank must call)."""
        with whole(list(self._trainable.values())):
            return {name: value.detach().to("cpu", copy=True) for name, value in self._trainable.items()}


def _optimizer_keys(tensors: Mapping[str, Tensor], index: int) -> tuple[str, ...]:
    """The names of the optimizer's state for its `index`-th tensor (AdamW: step, exp_avg, exp_avg_sq)."""
    kinds = (name.partition("/") for name in tensors)
    return tuple(kind for kind, _, place in kinds if place == str(index) and kind not in ("weight", "master"))


def _held(parameter: nn.Parameter) -> Tensor:
    """The part of a parameter that this rank holds."""
    held: Tensor = parameter.ds_tensor if hasattr(parameter, "ds_tensor") else parameter.data
    return held


@contextmanager
def stage_engine(
    model: nn.Module, trainable: Mapping[str, nn.Parameter], loss: Callable[[Batch], Tensor], config: Config
) -> Iterator[StageEngine]:
    """The engine that trains `trainable` to minimize `loss` (micro-batch -> summed loss)."""
    parameters = list(trainable.values())
    seen = model if config.engine.zero_stage == 3 else nn.ParameterList(parameters)
    settings = _deepspeed_config(config, model, sum(parameter.numel() for parameter in parameters))
    with _engine(model, _Wrapper(seen, loss), parameters, settings) as engine:
        yield StageEngine(engine, trainable)


def _deepspeed_config(config: Config, model: nn.Module, trainable_elements: int) -> dict[str, Any]:
    optimizer = config.optimizer
    return {
        # We make the micro-batches ourselves: these two numbers only have to be consistent.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "steps_per_print": None,
        # The throughput timer would synchronize with the GPU at every micro-batch.
        "timers": {"throughput": {"enabled": False}},
        "gradient_clipping": optimizer.grad_clip,
        "zero_optimization": _zero_config(config, model, trainable_elements),
        "optimizer": {
            "type": "AdamW",
            "params": {
                "torch_adam": True,
                "lr": optimizer.lr,
                "betas": list(optimizer.betas),
                "eps": optimizer.eps,
                "weight_decay": optimizer.weight_decay,
            },
        },
    }


def _zero_config(config: Config, model: nn.Module, trainable_elements: int) -> dict[str, Any]:
    # DeepSpeed clears buffers of this many elements at every step; its default of 5e8 takes seconds on a CPU.
    bucket = max(trainable_elements, 1 << 16)
    return {
        "stage": config.engine.zero_stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        # Partition matrices but not norms and biases, whatever the size of the model.
        "stage3_param_persistence_threshold": 4 * model.config.hidden_size,
    }


def start_communication() -> None:
    """Let DeepSpeed use the process group that is already initialized, without its shared-memory kernel.

    That kernel is for inference only, needs a compiler on every node, and names its shared memory by port, so two
    worker groups on one node could collide.
    """
    _silence_deepspeed()
    # Otherwise DeepSpeed would fill this by compiling a probe for each of its kernels. Nothing else reads it.
    deepspeed.ops.__compatible_ops__ = {}
    if not deepspeed.comm.is_initialized():
        deepspeed.comm.init_distributed(dist_init_required=False, verbose=False)


def _silence_deepspeed() -> None:
    deepspeed_logger.setLevel("WARNING")
    # DeepSpeed calls two collectives by deprecated names, with a warning each time.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")


def forget_gpu_cache() -> None:
    """Release the cached GPU memory of the last stage before the next one starts."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
