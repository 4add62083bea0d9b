"""The baseline at its best settings: Hugging Face's Trainer with PEFT on the same base, records and GPU.

In: a setup and contents. Out: tokens/s of the steps after warm-up. LoRA on the same modules with the same rank,
bfloat16 autocast, SDPA, fused AdamW, batches of records of similar length, no gradient checkpointing. The only part of
the engine that it uses is the conversion of records to tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from gpu.card import Device, Peak
from gpu.random_weights import made_on, shape_only
from gpu.stage_lab import WARM_STEPS, Setup
from s3t_ray.data.readers.inputs import encode


@dataclass(frozen=True)
class TrainerTimes:
    """One training."""

    tokens: int  # of all steps, without padding
    steps: int
    tokens_per_second: float  # of the steps after warm-up
    step_seconds: float  # median
    peak: Peak


def train(setup: Setup, device: Device, folder: Path, contents: Sequence[str], device_batch: int) -> TrainerTimes:
    """Train one LoRA adapter on all layers, with `device_batch` records per forward pass."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        LlamaForCausalLM,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    config = setup.config(device, folder)
    shape_only(folder / "base", setup.shape)
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    with made_on(device.kind):
        model = LlamaForCausalLM.from_pretrained(
            folder / "base", dtype=getattr(torch, device.precision), attn_implementation="sdpa"
        )
    model.config.use_cache = False
    adapter = LoraConfig(
        r=setup.rank, lora_alpha=setup.alpha, use_rslora=True, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, adapter)
    examples = [encode(content, tokenizer, config.task) for content in contents]
    rows: list[Any] = [
        {
            "input_ids": list(each.input_ids),
            "labels": list(each.labels),
            "attention_mask": [1] * len(each.input_ids),
            "length": len(each.input_ids),
        }
        for each in examples
    ]
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not ends:
                ends.append(device.clock())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(device.clock())

    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=device_batch,
        gradient_accumulation_steps=max(1, setup.batch_records // device_batch),
        num_train_epochs=setup.epochs,
        learning_rate=2e-5,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        bf16=device.on_gpu,
        optim="adamw_torch_fused" if device.on_gpu else "adamw_torch",
        gradient_checkpointing=False,
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        use_cpu=not device.on_gpu,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
    )
    collator = DataCollatorForSeq2Seq(tokenizer, padding="longest", label_pad_token_id=-100)
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[Clock()])
    device.release()
    device.reset_peak()
    trainer.train()
    peak = device.peak()
    steps = [second - first for first, second in pairwise(ends)]
    warm = WARM_STEPS if len(steps) > WARM_STEPS else 0
    tokens = sum(len(each.input_ids) for each in examples) * setup.epochs
    # Every step has the same number of records, so the average length per step varies little.
    rate = tokens / len(steps) * len(steps[warm:]) / sum(steps[warm:])
    del trainer, model
    device.release()
    return TrainerTimes(tokens, len(steps), rate, median(steps), peak)
