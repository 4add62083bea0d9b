"""One DeepSpeed engine for one stage, and nothing left of it afterwards.

In: the trainable parameters and a function from micro-batch to loss. Out: optimizer steps, and at the end the whole
trained tensors. Up to ZeRO 2 DeepSpeed only sees the trainable parameters, through a wrapper made for this stage:
the frozen base keeps its type and place, and what `destroy` leaves of an engine (hooks on the module it was given)
dies with the wrapper. ZeRO 3 must see the base to split it over the ranks; what its engine leaves on the base and in
DeepSpeed's globals is taken away here, else old engines pile up with their optimizer state.
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

# A private method of DeepSpeed with an unbounded cache: its keys hold coordinators, and they the engines.
_PARAMETERS_TO_RELEASE = inspect.getclosurevars(
    vars(PartitionedParameterCoordinator)["_PartitionedParameterCoordinator__params_to_release"]
).nonlocals["func"]


class _Wrapper(nn.Module):
    """What DeepSpeed wraps: parameters it may see, and a computation as its forward."""

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
    """A DeepSpeed engine, and afterwards nothing of it on `model` or in DeepSpeed's own globals."""
    _silence_deepspeed()
    engine, *_ = deepspeed.initialize(
        model=wrapper, model_parameters=parameters, config=config, dist_init_required=False
    )
    try:
        yield engine
    finally:
        engine.destroy()
        for module in model.modules():
            # Parameters that ZeRO 3 saw a module use: it would gather those of old stages in every forward pass.
            vars(module).get("_external_params", {}).clear()
        # Here ZeRO 3 keeps every engine alive for good, with its optimizer state.
        FWD_MODULE_STACK.clear()
        _PARAMETERS_TO_RELEASE.cache_clear()


@contextmanager
def inference(model: nn.Module, compute: Callable[[Packed], Any], config: Config) -> Iterator[Callable[[Packed], Any]]:
    """`compute` over the base at rest, without gradients; at ZeRO 3 over a base that is split over the ranks."""
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
        """One optimizer step over this rank's micro-batches; the step minimises scale x their summed loss.

        Returns this rank's summed loss, unscaled. DeepSpeed averages gradients over ranks, so `scale` is
        ranks / labelled tokens of the step to get the mean over all labelled tokens.
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
        """This rank's part of everything that the next step depends on: weights, master weights, optimizer state."""
        found = {f"weight/{name}": _held(value) for name, value in self._trainable.items()}
        for index, master in enumerate(self._masters()):
            found[f"master/{index}"] = master
            for key, value in self._torch_optimizer().state[master].items():
                found[f"{key}/{index}"] = value
        return {name: value.detach().to("cpu", copy=True) for name, value in found.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on exactly from a `state` of this rank."""
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
        """The tensors that AdamW steps: the parameters themselves, or with ZeRO this rank's flat part of them."""
        if self._engine.zero_optimization_stage() == 3:
            masters: list[Tensor] = self._engine.optimizer.fp32_partitioned_groups_flat
            return masters
        return [master for group in self._torch_optimizer().param_groups for master in group["params"]]

    def tensors(self) -> dict[str, Tensor]:
        """Whole copies of the trainable parameters on CPU, gathered from all ranks (every rank must call)."""
        with whole(list(self._trainable.values())):
            return {name: value.detach().to("cpu", copy=True) for name, value in self._trainable.items()}


def _optimizer_keys(tensors: Mapping[str, Tensor], index: int) -> tuple[str, ...]:
    """What the optimizer keeps of its `index`-th tensor, by its own names (AdamW: step, exp_avg, exp_avg_sq)."""
    kinds = (name.partition("/") for name in tensors)
    return tuple(kind for kind, _, place in kinds if place == str(index) and kind not in ("weight", "master"))


def _held(parameter: nn.Parameter) -> Tensor:
    """What of a parameter lies on this rank."""
    held: Tensor = parameter.ds_tensor if hasattr(parameter, "ds_tensor") else parameter.data
    return held


@contextmanager
def stage_engine(
    model: nn.Module, trainable: Mapping[str, nn.Parameter], loss: Callable[[Batch], Tensor], config: Config
) -> Iterator[StageEngine]:
    """The engine that trains `trainable` to lower `loss` (micro-batch -> summed loss)."""
    parameters = list(trainable.values())
    seen = model if config.engine.zero_stage == 3 else nn.ParameterList(parameters)
    settings = _deepspeed_config(config, model, sum(parameter.numel() for parameter in parameters))
    with _engine(model, _Wrapper(seen, loss), parameters, settings) as engine:
        yield StageEngine(engine, trainable)


def _deepspeed_config(config: Config, model: nn.Module, trainable_elements: int) -> dict[str, Any]:
    optimizer = config.optimizer
    return {
        # Micro-batches are ours: these two numbers only have to agree with each other.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "steps_per_print": None,
        # It would wait for the GPU at every micro-batch.
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
    # Buffers of this many elements are cleared at every step; the default of 5e8 takes seconds on a CPU.
    bucket = max(trainable_elements, 1 << 16)
    return {
        "stage": config.engine.zero_stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        # Norms and biases stay whole, matrices are split, whatever the size of the model.
        "stage3_param_persistence_threshold": 4 * model.config.hidden_size,
    }


def start_communication() -> None:
    """Let DeepSpeed use the worker group that is already joined; without its shared-memory kernel.

    That kernel serves inference only, needs a compiler on every node and names its memory by port, so that two
    worker groups of one node could meet in it.
    """
    _silence_deepspeed()
    # Asked for nothing else; left alone, it is filled by compiling a probe for each of DeepSpeed's kernels.
    deepspeed.ops.__compatible_ops__ = {}
    if not deepspeed.comm.is_initialized():
        deepspeed.comm.init_distributed(dist_init_required=False, verbose=False)


def _silence_deepspeed() -> None:
    deepspeed_logger.setLevel("WARNING")
    # Old names of two collectives, which DeepSpeed still calls; said once a collective otherwise.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")


def forget_gpu_cache() -> None:
    """Give memory of the last stage back before the next."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
