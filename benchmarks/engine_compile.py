"""Measures whether torch.compile speeds up the engine's components, and whether the bits stay the same.

    python benchmarks/engine_compile.py --base demo-model

Covers the parts of a layer that are not a single product: the MLP with adapters, the RMSNorm (Hugging Face's, compiled,
against the engine's hand-written one), and the rotary embedding. Forward and backward pass on packs of two lengths,
with one compiled function for both, because packs differ in length. Two processes, each with its own empty compiler
cache, compile independently, as a replay would. CPU seconds, one thread. Writes
benchmarks/results/engine_compile.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchlib.stage_speed import model_shape
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from s3t_ray.config.schema import ModelShape
from s3t_ray.sweep.result_file import save
from s3t_ray.train.frozen_norm import _RmsNorm
from s3t_ray.train.lora_linear import _LoraLinear
from s3t_ray.train.ranks import make_deterministic

RESULTS = Path(__file__).with_name("results")
TOKENS = (416, 1024)
RANK, EPS = 16, 1e-5


@dataclass(frozen=True)
class Row:
    """One component at one length."""

    piece: str
    tokens: int
    engine_ms: float  # the engine's code, forward and backward
    compiled_ms: float
    compile_cpu_seconds: float  # of the first call at this length, its compiler's processes included
    equals_engine: bool
    largest_difference: float
    digest: str  # of the compiled component's output

    @property
    def speedup(self) -> float:
        return self.engine_ms / self.compiled_ms


@dataclass(frozen=True)
class Result:
    model: str
    rows: tuple[Row, ...]
    replay_equal: bool  # both processes compiled to the same bits


@dataclass(frozen=True)
class Piece:
    """A part of a layer: the engine's code, the code to compile, and the inputs for a length."""

    name: str
    engine: Callable[..., Any]
    compiled: Callable[..., Any]
    inputs: Callable[[int], Sequence[Tensor]]
    weights: Sequence[Tensor]  # that also get gradients


def pieces(shape: ModelShape) -> list[Piece]:
    generator = torch.Generator().manual_seed(0)

    def random(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator) * 0.05

    hidden, inner = shape.hidden, shape.intermediate
    sizes = ((inner, hidden), (inner, hidden), (hidden, inner))
    weights = [random(*size) for size in sizes]
    a = [random(RANK, inputs).requires_grad_() for _, inputs in sizes]
    b = [random(outputs, RANK).requires_grad_() for outputs, _ in sizes]
    scale = torch.rand(hidden, generator=generator)

    def linear(x: Tensor, number: int) -> Tensor:
        out: Tensor = _LoraLinear.apply(x, None, weights[number], None, a[number], b[number], 2.0)
        return out

    def mlp(x: Tensor) -> Tensor:
        return linear(torch.nn.functional.silu(linear(x, 0)) * linear(x, 1), 2)

    def norm(x: Tensor) -> Tensor:
        return scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS))

    def rotary(q: Tensor, k: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        queries, keys = apply_rotary_pos_emb(q.transpose(1, 2), k.transpose(1, 2), cosine, sine)
        return torch.cat([queries.flatten(), keys.flatten()])

    def rotary_inputs(tokens: int) -> list[Tensor]:
        q, k = (random(1, tokens, heads, shape.head_dim).requires_grad_() for heads in (shape.heads, shape.kv_heads))
        return [q, k, random(1, tokens, shape.head_dim), random(1, tokens, shape.head_dim)]

    def one(tokens: int) -> list[Tensor]:
        return [random(1, tokens, hidden).requires_grad_()]

    return [
        Piece("MLP with adapters", mlp, mlp, one, [*a, *b]),
        Piece("RMSNorm", lambda x: _RmsNorm.apply(x, scale, EPS), norm, one, []),
        Piece("rotary embedding", rotary, rotary, rotary_inputs, []),
    ]


def outcome(call: Callable[..., Any], inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Output and all gradients."""
    out = call(*inputs)
    wanted = [*(each for each in inputs if each.requires_grad), *weights]
    gradient = torch.linspace(-1, 1, out.numel()).view_as(out)
    return [out.detach(), *torch.autograd.grad(out, wanted, gradient)]


def fastest(call: Callable[[], object], times: int) -> float:
    """Milliseconds of CPU."""
    taken = []
    for _ in range(times):
        began = time.thread_time()
        call()
        taken.append(time.thread_time() - began)
    return 1000 * min(taken)


def cpu_seconds() -> float:
    """Of this process and of the finished compiler processes that it started."""
    import resource

    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usages)


def measure(shape: ModelShape) -> list[Row]:
    make_deterministic(1)
    rows = []
    for piece in pieces(shape):
        compiled = torch.compile(piece.compiled, dynamic=True)
        for tokens in TOKENS:
            inputs = piece.inputs(tokens)
            before = cpu_seconds()
            found = outcome(compiled, inputs, piece.weights)
            compiling = cpu_seconds() - before
            ours = outcome(piece.engine, inputs, piece.weights)
            rows.append(
                Row(
                    piece.name,
                    tokens,
                    fastest(partial(outcome, piece.engine, inputs, piece.weights), 12),
                    fastest(partial(outcome, compiled, inputs, piece.weights), 12),
                    compiling,
                    all(torch.equal(one, two) for one, two in zip(found, ours, strict=True)),
                    max(float((one - two).abs().max()) for one, two in zip(found, ours, strict=True)),
                    hashlib.sha256(b"".join(each.contiguous().numpy().tobytes() for each in found)).hexdigest()[:16],
                )
            )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="base model; `s3t demo` makes one in demo-model")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print("RESULT " + json.dumps([asdict(row) for row in measure(model_shape(given.base))]))
        return 0
    runs = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as cache:  # else the second process would only load the first one's result
            done = subprocess.run(
                [sys.executable, *sys.argv, "--one"],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
            )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            raise SystemExit(f"a process ended with {done.returncode}:\n{done.stderr[-3000:]}")
        runs.append([Row(**row) for row in json.loads(lines[0].removeprefix("RESULT "))])
    first, second = runs
    replay = [row.digest for row in first] == [row.digest for row in second]
    console = Console(width=130)
    table = Table(title="torch.compile, forward and backward", title_justify="left")
    for name in ("piece", "tokens", "engine ms", "compiled ms", "faster", "compiling, CPU s", "bits", "differ by"):
        table.add_column(name, justify="left" if name == "piece" else "right")
    for row in first:
        table.add_row(
            row.piece,
            str(row.tokens),
            f"{row.engine_ms:.2f}",
            f"{row.compiled_ms:.2f}",
            f"{row.speedup:.2f}x",
            f"{row.compile_cpu_seconds:.1f}",
            "equal" if row.equals_engine else "differ",
            f"{row.largest_difference:.1e}",
        )
    console.print(table)
    console.print(f"a second process compiles to {'the same' if replay else 'OTHER'} bits")
    console.print(save(RESULTS / "engine_compile.json", Result(given.base.name, tuple(first), replay)).name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
