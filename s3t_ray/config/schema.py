"""The one configuration model of a run: strict, frozen, importable without torch or Ray.

Each field says its unit and whether it decides the trained weights. Those that do say `Recipe`
(see `recipe.py`): changing one names new stages. The others can change between two starts of the
same run. What several fields must agree on is in `checks.py`.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from s3t_ray.config import checks
from s3t_ray.config.column_names import Columns, Roles
from s3t_ray.config.refusal import refusal
from s3t_ray.config.shape import ModelShape, Section

__all__ = [
    "Closure",
    "Columns",
    "Config",
    "Data",
    "Engine",
    "Keys",
    "LedgerSettings",
    "Lora",
    "Model",
    "ModelShape",
    "Optimizer",
    "Order",
    "Requeue",
    "Roles",
    "Storage",
    "Task",
    "Workers",
]

Text = Annotated[str, Field(min_length=1)]
Day = date


class Model(Section):
    """The base model, which never changes."""

    path: Text
    """Local folder, or hub name, of the base model in Hugging Face format (safetensors). Its bytes decide
    weights, through the base digest that stands in every recipe; where they lie does not."""
    revision: Text | None = None
    """Hub revision (commit, tag or branch); pin it so that a new download is the same base."""
    shape: ModelShape | None = None
    """Sizes, to plan without the weights; checked against the real config.json when training."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel. Recipe."""
    quantize: Literal["none", "8bit", "4bit"] = "none"
    """Bits a weight of the frozen base, kept by bitsandbytes (`pip install 's3t-ray[quantize]'`) and unpacked for
    each product; text models only. Recipe."""


class Task(Section):
    """What a record teaches."""

    kind: Literal["causal_lm", "classification"] = "causal_lm"
    """What the model learns: the response text, or a label with a task head a stage. Recipe."""
    max_tokens: Annotated[int, Field(ge=2)] = 512
    """Longest record in tokens; what is beyond is cut from the end. Recipe."""
    prompt: Literal["alpaca", "chat_template", "plain"] = "alpaca"
    """How an instruction becomes text: Alpaca's headings, the tokenizer's chat template, or bare
    text. Chat messages need `chat_template`. Recipe."""
    date: Day | None = None
    """The day that a chat template which asks for today's date is told, in training and in serving (2026-11-27):
    without it such a template is refused, since a stage would depend on the day it is trained. Recipe, where set."""
    train_on_prompt: Literal["never", "always"] = "never"
    """Whether the loss also covers prompt tokens. Plain text is always learned whole. Recipe."""
    labels: tuple[Text, ...] = ()
    """Class names, for classification only, in the order of the head's rows. Recipe."""

    @model_validator(mode="after")
    def _labels_belong_to_classification(self) -> Task:
        checks.check_task(self)
        return self


class Data(Section):
    """Where records come from and what their fields mean."""

    path: Text
    """File, folder or glob of JSONL, JSON, CSV, TSV or Parquet (also .gz and .zst), the same at s3://, gs://, hf:// or
    https://, or a Hugging Face dataset folder or hub name."""
    format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "huggingface"] = "auto"
    """`auto` goes by the file ending; a path that does not exist is taken as a hub name."""
    split: Text = "train"
    """Split of a Hugging Face dataset, and of a folder whose files are named by split."""
    columns: Columns = Columns()
    roles: Roles = Roles()
    subset: Text | None = None
    """Configuration of a Hugging Face dataset that has several (`sst2` of `glue`)."""
    id_field: Text | None = "auto"
    """Field with the stable record id. null: derive the id from the content; a row that repeats another's content
    then counts as malformed. `auto`: the field `id`; where the first row has none, ids are derived, and rows that
    repeat another's content are left out. What was done is said."""
    subject_field: Text | None = None
    """Field that names the person a record belongs to; null: no subjects."""
    partition_by: Literal["record", "subject"] = "record"
    """What the keyed hash sees: one person's records fall in one slice with `subject`. Recipe."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of records (by keyed hash) kept from training, for `s3t eval`. Recipe."""
    holdout_path: Text | None = None
    """Records for `s3t eval` from a file of their own, in the same format; excludes `holdout`."""
    on_malformed: Literal["refuse", "set_aside"] = "refuse"
    """`refuse`: any malformed row refuses the whole input. `set_aside`: write it to rejects.jsonl."""

    @model_validator(mode="after")
    def _consistent(self) -> Data:
        checks.check_data(self)
        return self


class Order(Section):
    """In which orders a shard's slices are learned."""

    kind: Literal["cyclic", "chains", "greedy", "bms", "random", "explicit"] = "cyclic"
    """How the B orders of a shard's slices are chosen: rotations (the paper's), symmetric chains (deepest models
    after uniform deletions), greedily for given probabilities, the paper's matching for them, drawn from the seed,
    or those listed. Stages that orders share stay. docs/orders.md compares them."""
    sequences: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...] = ()
    """The orders themselves, for `explicit` only: each a permutation of 0..L-1."""
    probabilities: tuple[tuple[Annotated[float, Field(ge=0)], ...], ...] = ()
    """How likely each slice is to lose a record, for `greedy` and `bms`: L numbers, in one row for all shards or
    one row a shard. Only proportions count; empty: all alike."""
    depends_on_history: bool = False
    """Say true when earlier deletions had a say in `probabilities` or `sequences`: every certificate then says so,
    because exactness does not cover what such a choice tells of deleted records (docs/orders.md)."""


class Lora(Section):
    """The adapters."""

    rank: PositiveInt = 16
    """Rank of an adapter's two matrices. Recipe."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Strength of an adapter, before the scaling below. Recipe."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an adapter's inputs dropped while training. Recipe."""
    use_rslora: bool = True
    """Scale by alpha / sqrt(rank) (rsLoRA), as the paper does, not by alpha / rank. Recipe."""
    layers_per_group: PositiveInt
    """Layers of one layer group; stage i trains the i-th group from the top. Recipe."""
    targets: Literal["all-linear"] | Annotated[tuple[Text, ...], Field(min_length=1)] = "all-linear"
    """Linear modules of a layer that get an adapter, by name, or all of them. Recipe."""


class Optimizer(Section):
    """AdamW and its schedule, begun anew at each stage."""

    lr: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate of AdamW. Recipe."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay of AdamW's two moments, a step. Recipe."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Keeps AdamW's division finite. Recipe."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay, a step, times the learning rate. Recipe."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a stage's steps spent rising linearly to `lr`. Recipe."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up, down to 0. Recipe."""
    epochs: PositiveInt = 3
    """Passes over a stage's slices. Recipe."""
    batch_records: PositiveInt = 8
    """Records an optimizer step, over all ranks and micro-batches. Recipe."""
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    """Norm to which gradients are clipped; 0: no clipping. Recipe."""


class Engine(Section):
    """How a worker group computes a stage."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the base and the activations; LoRA master weights are always float32. Recipe."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage. Recipe: the reduction order differs."""
    ranks: PositiveInt = 1
    """Ranks (processes) of a worker group. Recipe."""
    threads: PositiveInt = 1
    """CPU threads of a rank. Recipe: sums are split by thread."""
    micro_batch_tokens: PositiveInt = 2048
    """Most tokens a rank packs into one forward pass; a longer single record goes alone. Recipe."""
    hidden_states: Literal["store", "recompute"] = "store"
    """Hidden states that enter a layer group: of each record alone, to be stored, or recomputed at each step
    with the whole pack. Recipe: the bits differ."""
    stored_boundaries: Literal["all", "auto"] | tuple[PositiveInt, ...] = "all"
    """Which of them are stored: those of stages of these depths, all, or, with `auto`, those that pay by the plan
    (`s3t plan` shows it). The others are computed anew from the nearest stored below, to the same bits: change it
    at any time, nothing is trained again."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory. Recipe."""
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between mid-stage checkpoints; 0: none (a stage that dies starts again)."""


class Workers(Section):
    """What Ray reserves."""

    groups: PositiveInt | Literal["auto"] = "auto"
    """Worker groups; `auto`: as many as the cluster has room for, at most one a sequence. `auto` follows
    nodes that join and leave, and runs that train at the same time share the cluster equally."""
    cpus_per_rank: PositiveInt = 1
    """CPU cores that Ray reserves for a rank."""
    gpus_per_rank: Annotated[int, Field(ge=0)] = 0
    """GPUs that Ray reserves for a rank; 0: CPU."""
    max_gpus: PositiveInt | None = None
    """Most GPUs that the run's worker groups may hold together; null: no limit."""
    autoscale_to: PositiveInt | None = None
    """`auto`: ask the cluster's autoscaler for nodes until the run has this many worker groups, while there is so
    much to train, and let them go when there is not. It never has more. null: the nodes that are there."""
    accelerator: Text | None = None
    """Kind of GPU to train on, by Ray's name (A100, H100, L4, ...): for clusters of several kinds, since
    adapters repeat to the bit on one kind only. null: any."""
    gigaflops_per_rank: Annotated[float, Field(gt=0)] | None = None
    """Rate of a rank's matrix products, for `engine.stored_boundaries: auto`; null: an assumption, said by
    `s3t plan`."""
    strategy: Literal["pack", "strict_pack", "spread"] = "pack"
    """Placement of a group's ranks: `pack` uses one node where it fits."""


class Requeue(Section):
    """When pruned sequences are trained again."""

    policy: Literal["eager", "lazy", "batch"] = "eager"
    """When pruned sequences heal: at once, below a depth, or once a window."""
    floor: Annotated[int, Field(ge=0)] = 1
    """lazy: heal a shard only when its live depth (stages) is below this."""
    window_seconds: Annotated[float, Field(ge=0)] = 60.0
    """batch: heal this long after the first deletion of a window."""


class Closure(Section):
    """How records like a deleted one are found. Nothing unasked is ever deleted."""

    near_duplicates: bool = True
    """Sketch every record when the data is read, so that a deletion can list records of nearly the same
    content (exact duplicates are always listed). Costs about 0.3 ms and 400 bytes of the ledger a record."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Likeness (Jaccard, over shingles) from which on two records are near-duplicates. The index is made for
    its value when the data is read: a lower one set later misses some."""
    permutations: Annotated[int, Field(ge=16, le=256)] = 64
    """Bytes of a record's sketch: the likeness is known to about 0.5 / sqrt(permutations). Fixed when the data
    is read."""
    shingle_words: PositiveInt = 5
    """Words in a row that are compared as one. Fixed when the data is read."""


class Storage(Section):
    """Where the run lives."""

    uri: Text
    """Root of the run: a local path or s3:// or gs:// URI. Everything the run keeps is under it,
    but the ledger, where `ledger.url` names a server, and the keys."""
    hidden_states_gib: Annotated[float, Field(ge=0)] | None = None
    """Most GiB of stored hidden states that `engine.stored_boundaries: auto` plans for; null: no limit."""
    megabytes_per_second: Annotated[float, Field(gt=0)] | None = None
    """Rate at which a rank reads and writes hidden states, for `auto`; null: an assumption, said by `s3t plan`.
    `benchmarks/hidden_states.py` measures it."""


class LedgerSettings(Section):
    """Where the durable truth lives."""

    url: Text | None = None
    """SQLAlchemy URL. null: SQLite in the run's folder; a cluster with remote storage needs
    postgresql+psycopg://. Write ${NAME} to take a part from the environment; a password only so."""


class Keys(Section):
    """Where the secrets live."""

    dir: Text | None = None
    """Folder of the secret key that hides ids in the ledger and of the signing key; null:
    the folder `<run>.keys` beside a local run. Never inside the run's storage."""


class Config(Section):
    """A whole run. `s3t plan` shows what it means; docs/config.md is generated from here."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    """Name of the run: lower-case letters, digits, dot, dash, underscore; at most 63."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of everything random: partition, orders, initialisation, dropout. Recipe."""
    shards: Annotated[int, Field(ge=1, le=10_000)]
    """m: shards, each with an ensemble member of its own. Recipe (through the partition)."""
    slices: Annotated[int, Field(ge=1, le=1_000)]
    """L, slices a shard. Recipe (through the partition)."""
    budget: PositiveInt
    """B, sequences a shard. Not recipe: a larger budget retrains nothing."""
    order: Order = Order()
    model: Model
    task: Task = Task()
    data: Data
    lora: Lora
    optimizer: Optimizer = Optimizer()
    engine: Engine = Engine()
    workers: Workers = Workers()
    requeue: Requeue = Requeue()
    closure: Closure = Closure()
    storage: Storage
    ledger: LedgerSettings = LedgerSettings()
    keys: Keys = Keys()

    @model_validator(mode="after")
    def _possible(self) -> Config:
        checks.check_orders(self)
        checks.check_engine(self)
        checks.check_boundaries(self)
        checks.check_workers(self)
        checks.check_places(self)
        if self.model.shape is not None:
            self.check_depth(self.model.shape.layers)
        return self

    def check_depth(self, model_layers: int) -> None:
        """Raise ValueError if L layer groups do not fit in `model_layers` layers."""
        asked = self.slices * self.lora.layers_per_group
        if asked > model_layers:
            raise refusal(
                "slices x lora.layers_per_group",
                f"{self.slices} x {self.lora.layers_per_group} = {asked} layers",
                f"the model has {model_layers}",
                f"lower lora.layers_per_group to {max(1, model_layers // self.slices)} "
                f"or slices to {max(1, model_layers // self.lora.layers_per_group)}",
            )
