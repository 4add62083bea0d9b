"""The one configuration model of a run: strict, frozen, importable without torch or Ray.

Each field says its unit and whether it decides the trained weights. Those that do are the
*recipe* (see `recipe.py`): changing one names new stages. The others can change between two
starts of the same run.
"""

from __future__ import annotations

from math import factorial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelShape(_Section):
    """Sizes of the base model, as in its config.json. Given here, `s3t plan` needs no download."""

    layers: PositiveInt
    hidden: PositiveInt
    intermediate: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    vocabulary: PositiveInt
    tied_embeddings: bool = False

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def layer_parameters(self) -> int:
        """Weights of one decoder layer (attention and gated MLP; norms are negligible)."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_heads * self.head_dim
        return attention + 3 * self.hidden * self.intermediate

    @property
    def head_parameters(self) -> int:
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        embeddings = self.head_parameters * (1 if self.tied_embeddings else 2)
        return self.layers * self.layer_parameters + embeddings


class Model(_Section):
    path: str
    """Local folder, or hub name, of the base model in Hugging Face format. Recipe (its bytes)."""
    revision: str | None = None
    """Hub revision; pin it so that the base cannot change under a run. Recipe."""
    shape: ModelShape | None = None
    """Sizes, to plan without the weights; checked against the real config.json when training."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel. Recipe."""
    quantize: Literal["none", "8bit", "4bit"] = "none"
    """Quantised frozen base, with bitsandbytes, on GPU only. Recipe."""


class Task(_Section):
    kind: Literal["causal_lm", "classification"] = "causal_lm"
    """What the model learns: the response text, or a label with a task head a stage. Recipe."""
    max_tokens: PositiveInt = 512
    """Longest record in tokens; what is beyond is cut from the end. Recipe."""
    prompt: Literal["alpaca", "chat_template", "plain"] = "alpaca"
    """How an instruction becomes text: Alpaca's headings, the tokenizer's chat template, or bare
    text. Chat messages need `chat_template`. Recipe."""
    train_on_prompt: Literal["never", "always"] = "never"
    """Whether the loss also covers prompt tokens. Plain text is always learned whole. Recipe."""
    labels: tuple[str, ...] = ()
    """Class names, for classification only, in the order of the head's rows. Recipe."""

    @model_validator(mode="after")
    def _labels_belong_to_classification(self) -> Task:
        if self.kind == "classification" and len(set(self.labels)) < 2:
            raise ValueError("labels must name at least 2 different classes for classification")
        if self.kind != "classification" and self.labels:
            raise ValueError("labels are for kind: classification; remove them")
        return self


class Data(_Section):
    path: str
    """File, folder or glob of JSONL / JSON / Parquet, or a Hugging Face dataset folder or hub name."""
    format: Literal["auto", "jsonl", "json", "parquet", "huggingface"] = "auto"
    """`auto` goes by the file ending; a path that does not exist is taken as a hub name."""
    split: str = "train"
    """Split of a Hugging Face dataset."""
    id_field: str | None = "id"
    """Field with the stable record id. null: derive the id from the content (said in `status`)."""
    subject_field: str | None = None
    """Field that names the person a record belongs to; null: no subjects."""
    partition_by: Literal["record", "subject"] = "record"
    """What the keyed hash sees: one person's records fall in one slice with `subject`. Recipe."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of records (by keyed hash) kept from training, for `s3t eval`. Recipe."""
    holdout_path: str | None = None
    """Records for `s3t eval` from a file of their own, in the same format; excludes `holdout`."""
    on_malformed: Literal["refuse", "set_aside"] = "refuse"
    """`refuse`: any malformed row refuses the whole input. `set_aside`: write it to rejects.jsonl."""

    @model_validator(mode="after")
    def _consistent(self) -> Data:
        if self.partition_by == "subject" and self.subject_field is None:
            raise ValueError("partition_by: subject needs subject_field; name it, or use partition_by: record")
        if self.holdout and self.holdout_path:
            raise ValueError("holdout and holdout_path exclude each other; keep one")
        return self


class Order(_Section):
    kind: Literal["cyclic", "chains", "random", "explicit"] = "cyclic"
    """How the B orders of a shard's slices are chosen (DESIGN.md, the method)."""
    sequences: tuple[tuple[int, ...], ...] = ()
    """The orders themselves, for `explicit` only: each a permutation of 0..L-1."""


class Lora(_Section):
    rank: PositiveInt = 16
    """Recipe."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Recipe."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Recipe."""
    use_rslora: bool = True
    """Scale by alpha / sqrt(rank) (rsLoRA), as the paper does. Recipe."""
    layers_per_group: PositiveInt
    """Layers of one layer group; stage i trains the i-th group from the top. Recipe."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Linear modules of a layer that get an adapter, by name, or all of them. Recipe."""


class Optimizer(_Section):
    lr: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate of AdamW. Recipe."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Recipe."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Recipe."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Recipe."""
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


class Engine(_Section):
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
    """Hidden states that enter a layer group: computed once a record and stored, or recomputed at
    each step. Recipe: the bits differ."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory. Recipe."""
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between mid-stage checkpoints; 0: none (a stage that dies starts again)."""


class Workers(_Section):
    groups: PositiveInt | Literal["auto"] = "auto"
    """Worker groups; `auto`: as many as the cluster has room for, at most one a sequence."""
    cpus_per_rank: PositiveInt = 1
    """CPU cores that Ray reserves for a rank."""
    gpus_per_rank: Annotated[int, Field(ge=0)] = 0
    """GPUs that Ray reserves for a rank; 0: CPU."""
    strategy: Literal["pack", "strict_pack", "spread"] = "pack"
    """Placement of a group's ranks: `pack` uses one node where it fits."""


class Requeue(_Section):
    policy: Literal["eager", "lazy", "batch"] = "eager"
    """When pruned sequences heal: at once, below a depth, or once a window."""
    floor: Annotated[int, Field(ge=0)] = 1
    """lazy: heal a shard only when its live depth is below this."""
    window_seconds: Annotated[float, Field(ge=0)] = 60.0
    """batch: heal this long after the first deletion of a window."""


class Storage(_Section):
    uri: str
    """Root of the run: a local path or s3:// or gs:// URI. Everything the run keeps is under it,
    but the ledger, where `ledger.url` names a server, and the keys."""


class LedgerSettings(_Section):
    url: str | None = None
    """SQLAlchemy URL. null: SQLite in the run's folder; a cluster with remote storage needs
    postgresql+psycopg://. Write ${NAME} to take a part from the environment."""


class Keys(_Section):
    dir: str | None = None
    """Folder of the secret key that hides ids in the ledger and of the signing key; null:
    the folder `<run>.keys` beside a local run. Never inside the run's storage."""


class Config(_Section):
    """A whole run. `s3t plan` shows what it means; docs/config.md is generated from here."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    """Name of the run: lower-case letters, digits, dot, dash, underscore."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of everything random: partition, orders, initialisation, dropout. Recipe."""
    shards: PositiveInt
    """m. Recipe (through the partition)."""
    slices: PositiveInt
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
    storage: Storage
    ledger: LedgerSettings = LedgerSettings()
    keys: Keys = Keys()

    @model_validator(mode="after")
    def _possible(self) -> Config:
        orders = factorial(self.slices)
        if self.budget > orders:
            raise ValueError(
                f"budget must be 1..{orders} ({self.slices} slices have {orders} orders), got {self.budget}"
            )
        if self.order.kind == "explicit":
            self._check_explicit_orders()
        elif self.order.sequences:
            raise ValueError(f"order.sequences is for kind: explicit; remove it or change kind {self.order.kind!r}")
        if self.model.shape is not None:
            self.check_depth(self.model.shape.layers)
        if self.model.quantize != "none" and self.workers.gpus_per_rank == 0:
            raise ValueError("model.quantize needs a GPU: set workers.gpus_per_rank to 1, or quantize: none")
        if self.engine.precision == "bfloat16" and self.workers.gpus_per_rank == 0:
            raise ValueError(
                "engine.precision bfloat16 on CPU is about 15 times slower than float32: use float32, "
                "or set workers.gpus_per_rank"
            )
        if "://" in self.storage.uri and not self.storage.uri.startswith("file://") and self.ledger.url is None:
            raise ValueError(
                f"ledger.url must name a PostgreSQL server when storage.uri is remote ({self.storage.uri}): "
                "SQLite needs a local folder"
            )
        return self

    def _check_explicit_orders(self) -> None:
        if len(self.order.sequences) != self.budget:
            raise ValueError(
                f"order.sequences must list exactly budget = {self.budget} orders, got {len(self.order.sequences)}"
            )
        whole = list(range(self.slices))
        for order in self.order.sequences:
            if sorted(order) != whole:
                raise ValueError(f"order.sequences: {list(order)} is not a permutation of {whole}")
        if len(set(self.order.sequences)) != self.budget:
            raise ValueError("order.sequences lists an order twice; each must differ")

    def check_depth(self, model_layers: int) -> None:
        """Raise ValueError if L layer groups do not fit in `model_layers` layers."""
        asked = self.slices * self.lora.layers_per_group
        if asked > model_layers:
            raise ValueError(
                f"slices x lora.layers_per_group = {self.slices} x {self.lora.layers_per_group} = {asked} layers, "
                f"but the model has {model_layers}: lower lora.layers_per_group to {max(1, model_layers // self.slices)} "
                f"or slices to {max(1, model_layers // self.lora.layers_per_group)}"
            )
