"""Measures several sequences on a shared base: is one joint pass over their tokens faster than one pass each?

    python benchmarks/several_sequences.py --base demo-model

One layer group is trained for k sequences, either separately, as the engine does, or stacked: one product applies the
frozen weights to the tokens of all k, and a batched product over [k, tokens, inputs] applies the adapters. Both compute
the same losses and gradients up to rounding; the output says whether the bits are equal. CPU seconds, one thread,
forward and backward.
Writes benchmarks/results/several_sequences.json and .png.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from s3t_ray.sweep.result_file import save
from s3t_ray.train.attention import register_packed_sdpa
from s3t_ray.train.frozen_norm import FrozenRmsNorm, replace_norms
from s3t_ray.train.lora_linear import _LoraLinear

RESULTS = Path(__file__).with_name("results")
LAYERS, RANK, SCALE = 5, 16, 2.0
RECORD_TOKENS = 64
TOKENS = (64, 256, 512)  # of one sequence's pack
SEQUENCES = (2, 4)


@dataclass(frozen=True)
class Row:
    """k sequences with a pack of `tokens` each."""

    sequences: int
    tokens: int
    apart_cpu_seconds: float
    stacked_cpu_seconds: float
    largest_difference: float  # of a gradient, relative to the largest gradient
    bits_equal: bool

    @property
    def speedup(self) -> float:
        return self.apart_cpu_seconds / self.stacked_cpu_seconds


@dataclass(frozen=True)
class Result:
    model: str
    layers: int
    rank: int
    record_tokens: int
    rows: tuple[Row, ...]


class _Stacked(torch.autograd.Function):
    """The engine's LoRA layer for k sequences, with their tokens concatenated."""

    @staticmethod
    def forward(ctx: Any, x_T_I: Tensor, weight_O_I: Tensor, a_K_R_I: Tensor, b_K_O_R: Tensor) -> Tensor:
        sequences = len(a_K_R_I)
        x_K_T_I = x_T_I.view(sequences, -1, x_T_I.shape[-1])
        low_K_T_R = torch.bmm(x_K_T_I, a_K_R_I.transpose(1, 2))
        y_T_O = torch.mm(x_T_I, weight_O_I.t())
        y_T_O.view(sequences, -1, len(weight_O_I)).baddbmm_(low_K_T_R, b_K_O_R.transpose(1, 2), alpha=SCALE)
        ctx.save_for_backward(x_K_T_I, low_K_T_R, weight_O_I, a_K_R_I, b_K_O_R)
        return y_T_O

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x_K_T_I, low_K_T_R, weight_O_I, a_K_R_I, b_K_O_R = ctx.saved_tensors
        g_T_O = grad_outputs[0].contiguous()
        g_K_T_O = g_T_O.view(len(a_K_R_I), -1, len(weight_O_I))
        low_gradient = torch.bmm(g_K_T_O, b_K_O_R).mul_(SCALE)
        of_a = torch.bmm(low_gradient.transpose(1, 2), x_K_T_I)
        of_b = torch.bmm(low_K_T_R.transpose(1, 2), g_K_T_O).mul_(SCALE).transpose(1, 2)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.mm(g_T_O, weight_O_I)
            of_x.view_as(x_K_T_I).baddbmm_(low_gradient, a_K_R_I)
        return of_x, None, of_a, of_b


class Adapted(nn.Module):
    """A frozen linear layer with the adapters of all sequences; `only` names one, or None for all stacked."""

    def __init__(self, base: nn.Module, sequences: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = base.weight
        outputs, inputs = base.weight.shape
        self.a = nn.Parameter(torch.randn(sequences, RANK, inputs, generator=generator) * 0.02)
        self.b = nn.Parameter(torch.randn(sequences, outputs, RANK, generator=generator) * 0.02)
        self.only: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.only is not None:
            a, b = self.a[self.only], self.b[self.only]
            return _LoraLinear.apply(x, None, self.weight, None, a, b, SCALE)
        return _Stacked.apply(x.reshape(-1, x.shape[-1]), self.weight, self.a, self.b).view(*x.shape[:-1], -1)


def top_layers(base: Path) -> nn.Module:
    """The top layers of the base, frozen."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation=register_packed_sdpa())
    model.requires_grad_(False)
    replace_norms(model, FrozenRmsNorm)
    body: nn.Module = model.model
    body.layers = body.layers[-LAYERS:]
    return body


def adapt(body: nn.Module, sequences: int) -> list[Adapted]:
    """Give each linear module new adapters for all sequences."""
    generator = torch.Generator().manual_seed(0)
    adapted = []
    for path, module in list(body.layers.named_modules()):
        if isinstance(module, (nn.Linear, Adapted)):
            parent, _, leaf = path.rpartition(".")
            adapted.append(Adapted(module, sequences, generator))
            setattr(body.layers.get_submodule(parent), leaf, adapted[-1])
    return adapted


def once(body: nn.Module, states_T_D: Tensor) -> None:
    """Forward and backward pass of one pack; gradients accumulate in the adapters."""
    tokens = len(states_T_D)
    ends = range(RECORD_TOKENS, tokens + 1, RECORD_TOKENS)
    segments = tuple((end - RECORD_TOKENS, end) for end in ends)
    positions = torch.arange(RECORD_TOKENS).repeat(len(segments)).unsqueeze(0)
    out = body(inputs_embeds=states_T_D.unsqueeze(0), position_ids=positions, use_cache=False, segments=segments)
    out.last_hidden_state.square().sum().backward()


def timed(call: Callable[[], None], seconds: float) -> float:
    """CPU seconds of the fastest call made within `seconds`."""
    call()
    fastest, end = float("inf"), time.thread_time() + seconds
    while time.thread_time() < end:
        began = time.thread_time()
        call()
        fastest = min(fastest, time.thread_time() - began)
    return fastest


def compare(body: nn.Module, sequences: int, tokens: int, seconds: float) -> Row:
    adapted = adapt(body, sequences)
    hidden = body.config.hidden_size
    states = torch.randn(sequences, tokens, hidden, generator=torch.Generator().manual_seed(1))

    def run(only: int | None, fed: Tensor) -> None:
        for each in adapted:
            each.only = only
        once(body, fed)

    def apart() -> None:
        for number in range(sequences):
            run(number, states[number])

    def stacked() -> None:
        run(None, states.view(-1, hidden))

    def gradients(call: Callable[[], None]) -> Tensor:
        for each in adapted:
            each.a.grad = each.b.grad = None
        call()
        return torch.cat([grad.flatten() for each in adapted for grad in (each.a.grad, each.b.grad)])

    first, second = gradients(apart), gradients(stacked)
    difference = float((first - second).abs().max() / first.abs().max())
    equal = torch.equal(first, second)
    return Row(sequences, tokens, timed(apart, seconds), timed(stacked, seconds), difference, equal)


def draw(result: Result, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(6, 3.6))
    for sequences in SEQUENCES:
        rows = [row for row in result.rows if row.sequences == sequences]
        panel.plot(
            [row.tokens for row in rows], [row.speedup for row in rows], marker="o", label=f"{sequences} sequences"
        )
    panel.axhline(1, color="#555555", linewidth=1, linestyle="--")
    panel.set_xscale("log", base=2)
    panel.set_xticks(TOKENS, [str(each) for each in TOKENS])
    panel.set_xlabel("tokens of one sequence's pack")
    panel.set_ylabel("stacked is faster by")
    panel.set_ylim(0)
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="base model; `s3t demo` makes one in demo-model")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of each measurement")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120)
    table = Table(title=f"k sequences on one base, {LAYERS} layers, rank {RANK}", title_justify="left")
    for name in ("k", "tokens each", "apart, CPU s", "stacked, CPU s", "faster", "gradients differ by", "bits"):
        table.add_column(name, justify="right")
    rows = []
    body = top_layers(given.base)
    for tokens in TOKENS:
        for sequences in SEQUENCES:
            rows.append(compare(body, sequences, tokens, given.seconds))
            row = rows[-1]
            table.add_row(
                str(row.sequences),
                str(row.tokens),
                f"{row.apart_cpu_seconds:.3f}",
                f"{row.stacked_cpu_seconds:.3f}",
                f"{row.speedup:.2f}x",
                f"{row.largest_difference:.1e}",
                "equal" if row.bits_equal else "differ",
            )
    console.print(table)
    result = Result(given.base.name, LAYERS, RANK, RECORD_TOKENS, tuple(rows))
    console.print(save(RESULTS / "several_sequences.json", result).name)
    draw(result, RESULTS / "several_sequences.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
