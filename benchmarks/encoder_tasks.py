"""Trains a GLUE task on a real encoder: held-out metrics by depth, and what stored hidden states save.

    python benchmarks/encoder_tasks.py --base BERT_FOLDER --train train.jsonl --dev dev.jsonl --task stsb

Trains the ensemble twice in one process, without Ray: with stored hidden states in packed rows, and with recomputed
states in padded batches. In: rows with the benchmark's fields. Out: a table, the CPU seconds of both, and their ratio.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchlib.encoder_run import config_of, train_chains

from s3t_ray.config.load import dump_config
from s3t_ray.config.schema import Config
from s3t_ray.data.readers.read import read_records
from s3t_ray.ensemble.answers import EvalReport
from s3t_ray.ensemble.replica import Replica


def main() -> None:
    arguments = _arguments()
    seconds: dict[str, float] = {}
    for states in ("store", "recompute"):
        with tempfile.TemporaryDirectory() as folder:
            config = config_of(arguments, Path(folder), states)
            chains, seconds[states], records = train_chains(config, arguments.base, Path(folder), arguments.records)
            report = _judge(config, arguments.base, arguments.dev, chains)
        print(f"{arguments.task}, {records} records, hidden states: {states}, {seconds[states]:.0f} CPU seconds")
        for depth, score in sorted(report.by_depth.items()):
            told = "  ".join(f"{name} {value:.4f}" for name, value in score.metrics.items())
            print(f"  depth {depth}: loss {score.loss:.4f}  {told}")
    print(f"padded and recomputed / packed and stored: {seconds['recompute'] / seconds['store']:.2f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--records", type=int, default=1_000, help="use the first N records of the training file")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--layers-per-group", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    return parser.parse_args()


def _judge(config: Config, base: Path, dev: Path, chains: Mapping[int, tuple[str, ...]]) -> EvalReport:
    replica = Replica(dump_config(config), str(base), config.storage.uri, config.engine.threads)
    replica.set_live(1, chains)
    held_out = config.data.model_copy(update={"path": str(dev)})
    return replica.evaluate([record.content for record in read_records(held_out, config.task)])


if __name__ == "__main__":
    main()
