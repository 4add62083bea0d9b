"""The rival that people use today: one LoRA on all data, by Ray Train's TorchTrainer, Hugging Face's Trainer and PEFT.

    python benchmarks/one_lora_by_ray.py --base MODEL_FOLDER --train train.jsonl --dev dev.jsonl --work FOLDER

GLUE's sst2 layout (sentence, label). It trains the adapter, judges it, then deletes the first records and trains it
again from nothing, as it must: no part of it can be kept. Prints accuracy and seconds of both, those of `fit()`
included. DeepSpeed (ZeRO 0) is used with --deepspeed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

TARGETS = ("query", "value")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--records", type=int, default=720)
    parser.add_argument("--dev-records", type=int, default=436)
    parser.add_argument("--delete", type=int, default=20, help="records; the adapter is then trained again")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--deepspeed", action="store_true")
    arguments = parser.parse_args()
    rows, dev = (
        _rows(path, most)
        for path, most in ((arguments.train, arguments.records), (arguments.dev, arguments.dev_records))
    )
    for moment, kept in (
        ("all records", rows),
        (f"{arguments.delete} deleted, trained again", rows[arguments.delete :]),
    ):
        began = time.perf_counter()
        found = _fit(arguments, kept, dev)
        wall = time.perf_counter() - began
        print(
            f"{moment}: accuracy {found['accuracy']:.4f}, {found['seconds']:.0f} s of training, {wall:.0f} s of fit()"
        )


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
    """The worker's loop: Hugging Face's Trainer on a PEFT model, then accuracy on the dev set."""
    import ray.train
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(given["base"])
    torch.manual_seed(0)
    plain = AutoModelForSequenceClassification.from_pretrained(given["base"], num_labels=2)
    lora = LoraConfig(r=16, lora_alpha=32, use_rslora=True, target_modules=list(TARGETS), task_type="SEQ_CLS")
    model = get_peft_model(plain, lora)

    def batch(rows: list[dict[str, Any]]) -> dict[str, Any]:
        found = tokenizer(
            [row["sentence"] for row in rows], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        return {**found, "labels": torch.tensor([row["label"] for row in rows])}

    settings = TrainingArguments(
        output_dir=f"{given['work']}/trainer",
        num_train_epochs=given["epochs"],
        learning_rate=given["lr"],
        per_device_train_batch_size=16,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        deepspeed=_DEEPSPEED if given["deepspeed"] else None,
    )
    began = time.perf_counter()
    Trainer(model=model, args=settings, train_dataset=given["rows"], data_collator=batch).train()
    seconds = time.perf_counter() - began
    model.eval()
    right = 0
    for start in range(0, len(given["dev"]), 32):
        own = batch(given["dev"][start : start + 32])
        labels = own.pop("labels")
        with torch.no_grad():
            right += int((model(**own).logits.argmax(1) == labels).sum())
    ray.train.report({"accuracy": right / len(given["dev"]), "seconds": seconds})


_DEEPSPEED = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_optimization": {"stage": 0},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "torch_adam": True}},
}


if __name__ == "__main__":
    main()
