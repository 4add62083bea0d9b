"""Measures the common stack: one LoRA on all data with Ray Train's TorchTrainer, Hugging Face's Trainer and PEFT.

    python benchmarks/one_lora_by_ray.py --base BERT_FOLDER --train train.jsonl --dev dev.jsonl --work FOLDER

The data are in the layout of GLUE's sst2 (sentence, label). The Trainer uses DeepSpeed (--no-deepspeed: without). It
trains the adapter and evaluates it, then deletes the first records and retrains from scratch, because no part of the
adapter can be kept. This project's engine trains the same LoRA on the same records for comparison. Writes
benchmarks/results/claims/one-lora-by-ray.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchlib.experiment_file import write_experiment

from s3t_ray.report.page_model import Cell, ReportSection, ReportTable

TARGETS = ("query", "key", "value", "dense")
"""Every linear module of a BERT layer: as `lora.targets: all-linear`."""
RANK, ALPHA, BATCH, LONGEST = 16, 32, 16, 128


def main() -> None:
    arguments = _arguments()
    began = time.perf_counter()
    rows, dev = (
        _rows(path, most)
        for path, most in ((arguments.train, arguments.records), (arguments.dev, arguments.dev_records))
    )
    found: list[tuple[Cell, ...]] = []
    for moment, kept in (("all records", rows), (f"{arguments.delete} records deleted", rows[arguments.delete :])):
        clock = time.perf_counter()
        theirs = _fit(arguments, kept, dev)
        wall = time.perf_counter() - clock
        found.append(("TorchTrainer", moment, theirs["train"], theirs["dev"], theirs["accuracy"], wall))
        clock = time.perf_counter()
        ours = _ours(arguments, moment, len(rows) - len(kept))
        wall = time.perf_counter() - clock
        found.append(("this engine", moment, ours["train"], ours["dev"], ours["accuracy"], wall))
    table = ReportTable(
        stem="one-lora-by-ray",
        title="One LoRA on everything, by the usual stack and by this engine",
        columns=("trained by", "on", "loss of the last tenth", "loss on dev", "accuracy on dev", "seconds"),
        rows=tuple(found),
        caption=f"{arguments.records} SST-2 sentences, {arguments.epochs} epochs, learning rate {arguments.lr:g}, rank "
        f"{RANK}, {'DeepSpeed ZeRO 0' if arguments.deepspeed else 'no DeepSpeed'}. Seconds: with the start of Ray and "
        "the imports of its worker for the TorchTrainer, in this process for the engine.",
    )
    section = ReportSection(title="", tables=(table,))
    title = "One LoRA by the usual stack"
    print(write_experiment("one-lora-by-ray", title, (section,), time.perf_counter() - began).name)
    for row in (table.columns, *table.rows):
        print("  ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--records", type=int, default=600)
    parser.add_argument("--dev-records", type=int, default=436)
    parser.add_argument("--delete", type=int, default=20, help="records; the adapter is then trained again")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=3e-4, help="1e-3 is too high for an adapter on all layers")
    parser.add_argument("--deepspeed", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


def _rows(path: Path, most: int) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()[:most]]


def _fit(arguments: argparse.Namespace, rows: list[dict[str, Any]], dev: list[dict[str, Any]]) -> dict[str, float]:
    """Train on one Ray worker; what it reports."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray.train
    from ray.train.torch import TorchTrainer

    given = {
        "base": str(arguments.base.resolve()),
        "work": str(arguments.work.resolve()),
        "rows": rows,
        "dev": dev,
        "epochs": arguments.epochs,
        "lr": arguments.lr,
        "deepspeed": arguments.deepspeed,
    }
    trainer = TorchTrainer(
        train_on_worker,
        train_loop_config=given,
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(storage_path=str(arguments.work.resolve()), name="one-lora"),
    )
    metrics: dict[str, float] = trainer.fit().metrics
    return metrics


def train_on_worker(given: dict[str, Any]) -> None:
    """The worker's loop: Hugging Face's Trainer on a PEFT model, then loss and accuracy on the dev set."""
    import ray.train
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(given["base"])
    torch.manual_seed(0)
    plain = AutoModelForSequenceClassification.from_pretrained(given["base"], num_labels=2)
    layers = [
        name
        for name, module in plain.named_modules()
        if ".encoder.layer." in name and isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in TARGETS
    ]
    lora = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        use_rslora=True,
        target_modules=layers,
        modules_to_save=["classifier"],
        task_type="SEQ_CLS",
    )
    model = get_peft_model(plain, lora)

    def batch(rows: list[dict[str, Any]]) -> dict[str, Any]:
        found = tokenizer(
            [row["sentence"] for row in rows], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        return {**found, "labels": torch.tensor([row["label"] for row in rows])}

    steps = -(-len(given["rows"]) // BATCH) * given["epochs"]
    settings = TrainingArguments(
        output_dir=f"{given['work']}/trainer",
        num_train_epochs=given["epochs"],
        learning_rate=given["lr"],
        lr_scheduler_type="linear",
        per_device_train_batch_size=BATCH,
        report_to="none",
        save_strategy="no",
        logging_steps=max(1, steps // 10),
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        deepspeed=_DEEPSPEED if given["deepspeed"] else None,
    )
    trainer = Trainer(model=model, args=settings, train_dataset=given["rows"], data_collator=batch)
    trainer.train()
    last = next(entry["loss"] for entry in reversed(trainer.state.log_history) if "loss" in entry)
    model.eval()
    losses, right = [], 0
    for start in range(0, len(given["dev"]), 32):
        own = batch(given["dev"][start : start + 32])
        labels = own.pop("labels")
        with torch.no_grad():
            logits = model(**own).logits
        losses += torch.nn.functional.cross_entropy(logits, labels, reduction="none").tolist()
        right += int((logits.argmax(1) == labels).sum())
    count = len(given["dev"])
    found = {"train": last, "dev": sum(losses) / count, "accuracy": right / count}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        # A result has only the metrics that were reported with a checkpoint.
        ray.train.report(found, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _ours(arguments: argparse.Namespace, moment: str, deleted: int) -> dict[str, float]:
    """One shard without slices: one LoRA on everything, by the engine."""
    from benchlib.chain_outputs import chain_outputs
    from benchlib.rival_parts import read_parts
    from benchlib.rival_training import Parts, Settings, sisa

    from s3t_ray.config.base_model import read_shape
    from s3t_ray.store.published_stage import read_manifest
    from s3t_ray.store.store import Store

    asked = argparse.Namespace(**{**vars(arguments), "task": "sst2", "shards": 1, "slices": 1})
    contents, parts = read_parts(asked, 0)
    gone = {json.loads(text)["id"] for text in arguments.train.read_text().splitlines()[:deleted]}
    kept: Parts = {(0, 0): [row for row in parts[0, 0] if row.id not in {str(each) for each in gone}]}
    settings = Settings(
        base=arguments.base,
        task={"benchmark": "sst2", "max_tokens": LONGEST},
        layers=read_shape(arguments.base).layers,
        slices=1,
        lr=arguments.lr,
        epochs=arguments.epochs,
        seed=0,
        alpha=ALPHA,
        batch_records=BATCH,
        rank=RANK,
    )
    system = sisa(settings, kept, arguments.work / moment.replace(" ", "-"), slices=False)
    chain = system.chains[0, (0,)]
    found, labels = chain_outputs(system.config, arguments.base, contents, [chain])
    logits = found[chain].astype(np.float64)
    chosen = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
    chosen -= logits.max(1, keepdims=True)
    losses = read_manifest(Store.open(system.config.storage.uri), chain[-1]).losses
    last = losses[-max(1, len(losses) // 10) :]
    return {
        "train": float(np.mean(last)),
        "dev": float(-chosen[np.arange(len(labels)), labels.astype(int)].mean()),
        "accuracy": float((logits.argmax(1) == labels).mean()),
    }


_DEEPSPEED = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_optimization": {"stage": 0},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "torch_adam": True}},
}


if __name__ == "__main__":
    main()
