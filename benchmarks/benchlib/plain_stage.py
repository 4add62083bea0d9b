"""Trains one stage with plain Hugging Face: Trainer and PEFT in a separate process.

    python -m benchlib.plain_stage COURSE.json SETTINGS.json

This is what a careful engineer writes without this package: load the base, insert the adapters of the groups above and
freeze them, train the stage's group on its slices, save. Every layer runs forward, and batches are padded. It gets the
same records, prompts, optimizer and settings as our engine, and uses none of the engine's code.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

from pydantic import BaseModel, ConfigDict

from benchlib.course import Course
from s3t_ray.data.readers.inputs import encode


class PlainStage(BaseModel):
    """One stage of one sequence, and how to train it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shard: int
    slices: tuple[int, ...]  # learned by this stage, in the order in which they were added
    parent: Path | None  # PEFT folder of the stage above
    out: Path
    gradient_checkpointing: bool
    length_grouped: bool


def train(course: Course, stage: PlainStage) -> float:
    """Train and save the stage. Returns the seconds in Hugging Face's training loop."""
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.utils import load_peft_weights, set_peft_model_state_dict
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    torch.set_num_threads(1)
    set_seed(course.seed)
    tokenizer = AutoTokenizer.from_pretrained(course.base)
    model = AutoModelForCausalLM.from_pretrained(course.base, dtype=torch.float32, attn_implementation="sdpa")
    model.config.use_cache = False
    depth = len(stage.slices)
    settings = LoraConfig(
        r=course.rank,
        lora_alpha=course.alpha,
        use_rslora=True,
        target_modules=[name for above in range(1, depth + 1) for name in course.modules(above)],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, settings)
    if stage.parent is not None:
        set_peft_model_state_dict(model, load_peft_weights(str(stage.parent), device="cpu"))
    own = {f"base_model.model.{name}" for name in course.modules(depth)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name and name.partition(".lora_")[0] in own)
    if stage.gradient_checkpointing:
        model.enable_input_require_grads()  # as the published script's preparation of the model does
    config = course.config(stage.out, {})
    examples = [
        encode(content, tokenizer, config.task)
        for index in stage.slices
        for content in course.shards[stage.shard][index]
    ]
    rows = [
        {
            "input_ids": list(each.input_ids),
            "labels": list(each.labels),
            "attention_mask": [1] * len(each.input_ids),
            "length": len(each.input_ids),
        }
        for each in examples
    ]
    arguments = TrainingArguments(
        output_dir=str(stage.out / "trainer"),
        per_device_train_batch_size=course.batch_records,
        num_train_epochs=course.epochs,
        learning_rate=course.lr,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch",
        gradient_checkpointing=stage.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if stage.gradient_checkpointing else None,
        train_sampling_strategy="group_by_length" if stage.length_grouped else "random",
        length_column_name="length",
        use_cpu=True,
        seed=course.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        remove_unused_columns=True,
    )
    collator = DataCollatorForSeq2Seq(tokenizer, padding="longest", label_pad_token_id=-100)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator)
    began = perf_counter()
    trainer.train()
    took = perf_counter() - began
    model.save_pretrained(str(stage.out))
    return took


def main() -> int:
    course = Course.model_validate_json(Path(sys.argv[1]).read_text())
    stage = PlainStage.model_validate_json(Path(sys.argv[2]).read_text())
    stage.out.mkdir(parents=True, exist_ok=True)
    took = train(course, stage)
    (stage.out / "seconds").write_text(f"{took}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
