"""The configuration model of a run: strict, frozen, importable without torch or Ray.

The docstring of each field states its unit, and says `Recipe` if the field affects the trained weights
(see `recipe.py`): changing it changes the stage ids. All other fields can change between two starts of
a run. `checks.py` has the checks that span several fields.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from s3t_ray.config import checks
from s3t_ray.config.closure import Closure
from s3t_ray.config.column_names import Columns, Roles
from s3t_ray.config.model_shape import ModelShape, Section
from s3t_ray.config.refuse import refusal
from s3t_ray.config.task_section import Task

__all__ = [
    "Closure",
    "Columns",
    "Config",
    "Data",
    "Engine",
    "KeySettings",
    "LedgerSettings",
    "LogSettings",
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
    """Local folder or hub name of the base model, in Hugging Face format (safetensors). Its bytes affect the trained
    weights, through the base digest in every recipe; its location does not."""
    revision: Text | None = None
    """Hub revision (commit, tag or branch). Pin it, so that a later download gets the same base."""
    shape: ModelShape | None = None
    """Sizes of the model, to plan without its weights. Training checks them against the real config.json."""
    attention: Literal["sdpa", "eager", "flash_attention_2", "flash_varlen"] = "sdpa"
    """Attention kernel. `sdpa` runs anywhere, with one call per record. `flash_varlen` is torch's FlashAttention over
    all records of a pack in one call: bfloat16 on NVIDIA GPUs of the Ampere generation or newer, text models only.
    `flash_attention_2` needs the package flash-attn, 2.4.1 or newer. Recipe."""
    quantize: Literal["none", "8bit", "4bit"] = "none"
    """Bits per weight of the frozen base. bitsandbytes stores the weights (`pip install 's3t-ray[quantize]'`) and
    unpacks them for each matrix product. Text models only. Recipe."""


class Data(Section):
    """The source of the records and the meaning of their fields."""

    path: Text
    """File, folder or glob of JSONL, JSON, CSV, TSV or Parquet (also .gz and .zst), the same at s3://, gs://, hf:// or
    https://, or a Hugging Face dataset folder or hub name."""
    format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "huggingface", "images"] = "auto"
    """`auto` decides by the file extension; a path that does not exist is a hub name. `images`: a folder of images with
    a subfolder per class; `auto` reads a folder this way if it holds images and no other data."""
    split: Text = "train"
    """Split of a Hugging Face dataset, and of a folder whose files are named by split."""
    columns: Columns = Columns()
    roles: Roles = Roles()
    subset: Text | None = None
    """Configuration of a Hugging Face dataset that has several, such as `sst2` of `glue`."""
    id_field: Text | None = "auto"
    """Field with the stable record id. null: derive ids from the content; a row with the same content as another is
    then malformed. `auto`: the field `id`; if the first row has none, ids are derived, and rows with the same content
    as another are left out. `s3t train` and `s3t plan` report which of the two applied."""
    subject_field: Text | None = None
    """Field that names the person to whom a record belongs. null: there are no subjects."""
    partition_by: Literal["record", "subject"] = "record"
    """What the keyed hash of the partition covers. With `subject`, all records of a person are in the same slice.
    Recipe."""
    partition_key: Literal["secret", "seed"] = "secret"
    """The key of that hash, in addition to the seed. `secret`: a secret among the run's keys. Without them, nobody can
    compute a person's slice, so a certificate, which names slices, does not narrow down the person. `seed`: only the
    seed, so that runs with different keys have the same partition, for public data and comparisons. Only used when the
    data is ingested: a run keeps its first partition."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the records, chosen by a keyed hash, that is held out of training for `s3t eval`. Recipe."""
    holdout_path: Text | None = None
    """Separate file of held-out records for `s3t eval`, in the same format. Excludes `holdout`."""
    holdout_split: Text | None = None
    """Split of a Hugging Face dataset with the records for `s3t eval` (`validation`). Excludes the two fields above.
    Ids get the split's name as a prefix (validation:17), because each split numbers its rows from 0."""
    on_malformed: Literal["refuse", "set_aside"] = "refuse"
    """`refuse`: one malformed row refuses the whole input. `set_aside`: write malformed rows to rejects.jsonl and
    continue with the rest."""

    @model_validator(mode="after")
    def _consistent(self) -> Data:
        checks.check_data(self)
        return self


class Order(Section):
    """The orders in which a shard's sequences add its slices."""

    kind: Literal["cyclic", "chains", "greedy", "bms", "random", "explicit"] = "cyclic"
    """How a shard's B orders are chosen. `cyclic`: rotations, as in the paper. `chains`: symmetric chains, which keep
    the deepest models after uniform deletions. `greedy` and `bms` (the paper's matching): for given probabilities.
    `random`: drawn from the seed. `explicit`: those listed. Changing the orders keeps the stages that they share.
    docs/orders.md compares them."""
    sequences: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...] = ()
    """The orders, for `explicit` only. Each is a permutation of 0..L-1."""
    probabilities: tuple[tuple[Annotated[float, Field(ge=0)], ...], ...] = ()
    """How likely each slice is to lose a record, for `greedy` and `bms`: rows of L numbers, either one row for all
    shards or one per shard. Only the proportions matter. Empty: all slices are equally likely."""
    depends_on_history: bool = False
    """Set it to true if earlier deletions influenced `probabilities` or `sequences`. Every certificate then says so,
    because exactness does not cover what such a choice reveals about deleted records (docs/orders.md)."""


class Lora(Section):
    """The LoRA adapters."""

    rank: PositiveInt = 16
    """Rank of an adapter's two matrices. Recipe."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Strength of an adapter, before the scaling of `use_rslora`. Recipe."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of an adapter's inputs during training. Recipe."""
    use_rslora: bool = True
    """Scale adapters by alpha / sqrt(rank) (rsLoRA), as the paper does, instead of alpha / rank. Recipe."""
    layers_per_group: PositiveInt
    """Layers per layer group. Stage i trains the i-th group from the top. Recipe."""
    isolation: Literal["layers", "none"] = "layers"
    """`layers`: stage i trains the i-th layer group and leaves all other groups unchanged. `none`: every stage
    continues to train the adapters of all groups and the task head from the previous stage, as SISA does, for
    comparison. A recipe does not include the value `layers`, so older stages keep their ids. Recipe."""
    targets: Literal["all-linear"] | Annotated[tuple[Text, ...], Field(min_length=1)] = "all-linear"
    """Names of the linear modules in a layer that get an adapter, or all of them. Recipe."""


class Optimizer(Section):
    """AdamW and its schedule. Each stage starts with a fresh optimizer."""

    lr: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate of AdamW. Recipe."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay rates of AdamW's two moments, per step. Recipe."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator of AdamW's update. Recipe."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay per step, multiplied by the learning rate. Recipe."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of a stage's steps in which the learning rate rises linearly to `lr`. Recipe."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Shape of the learning rate after the warm-up; `linear` and `cosine` fall to 0. Recipe."""
    epochs: PositiveInt = 3
    """Passes over a stage's slices. Recipe."""
    batch_records: PositiveInt = 8
    """Records per optimizer step, over all ranks and micro-batches. Recipe."""
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    """Maximum gradient norm. 0: gradients are not clipped. Recipe."""


class Engine(Section):
    """How a worker group trains a stage."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the base and the activations. LoRA master weights are always float32. Recipe."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage. Recipe, because it changes the order of reductions."""
    ranks: PositiveInt = 1
    """Ranks (processes) per worker group. Recipe."""
    threads: PositiveInt = 1
    """CPU threads per rank. Recipe, because sums are split by thread."""
    micro_batch_tokens: PositiveInt = 2048
    """Maximum number of tokens that a rank packs into one forward pass. A longer record gets its own pass.
    Recipe."""
    hidden_states: Literal["store", "recompute"] = "store"
    """How to get the hidden states that enter a layer group. `store`: compute them once per record and store them.
    `recompute`: compute them at each step for the entire pack. Recipe, because the bits differ."""
    stored_boundaries: Literal["all", "auto"] | tuple[PositiveInt, ...] = "all"
    """The hidden states to store: those that enter stages at these depths, `all`, or with `auto` those for which
    storing saves time (`s3t plan` shows them). The others are computed from the nearest stored ones below, to the same
    bits, so you can change this at any time without retraining."""
    norms: Literal["eager", "fused"] = "eager"
    """RMSNorm on a GPU: Hugging Face's separate operations, or torch's fused kernel, which keeps half the bytes and
    rounds one time less. Recipe, because the bits differ. A recipe does not include the value `eager`, so older stages
    keep their ids."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory. Recipe."""
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between checkpoints within a stage. 0: no checkpoints; an interrupted stage starts over."""


class Workers(Section):
    """The resources that the run reserves in Ray."""

    groups: PositiveInt | Literal["auto"] = "auto"
    """Number of worker groups. `auto`: as many as fit on the cluster, at most one per sequence. `auto` adapts to nodes
    that join and leave, and runs that train at the same time share the cluster equally."""
    cpus_per_rank: PositiveInt = 1
    """CPU cores that Ray reserves per rank."""
    gpus_per_rank: Annotated[int, Field(ge=0)] = 0
    """GPUs that Ray reserves per rank: 1, or 0 to train on the CPU. A base that needs several GPUs is partitioned over
    `engine.ranks`."""
    max_gpus: PositiveInt | None = None
    """Maximum number of GPUs that all of the run's worker groups may hold. null: no limit."""
    autoscale_to: PositiveInt | None = None
    """With `groups: auto`: request nodes from the cluster's autoscaler until the run has this many worker groups, as
    long as there is enough to train, and release them afterwards. The run never has more groups than this. null: use
    only the existing nodes."""
    accelerator: Text | None = None
    """Kind of GPU to train on, by Ray's name (A100, H100, L4, ...). For clusters with several kinds, because training
    repeats to the bit only on the same kind. null: any."""
    gigaflops_per_rank: Annotated[float, Field(gt=0)] | None = None
    """Rate of a rank's matrix products in GFLOP/s, for `engine.stored_boundaries: auto`. null: an assumption, which
    `s3t plan` shows."""
    strategy: Literal["pack", "strict_pack", "spread"] = "pack"
    """Placement of a group's ranks. `pack`: on one node if they fit. `strict_pack`: always on one node. `spread`:
    distributed over the nodes."""


class Requeue(Section):
    """When pruned sequences are retrained."""

    policy: Literal["eager", "lazy", "batch"] = "eager"
    """`eager`: heal immediately. `lazy`: heal only shards whose live depth is below `floor`. `batch`: heal once per
    window."""
    floor: Annotated[int, Field(ge=0)] = 1
    """For `lazy`: heal a shard when its live depth, in stages, is below this."""
    window_seconds: Annotated[float, Field(ge=0)] = 60.0
    """For `batch`: heal this many seconds after the first deletion of a window."""


class Storage(Section):
    """Where the run is stored."""

    uri: Text
    """Root of the run: a local path, or an s3:// or gs:// URI. Everything that the run stores is under it, except the
    keys, and the ledger if `ledger.url` names a server."""
    hidden_states_gib: Annotated[float, Field(ge=0)] | None = None
    """Maximum total size of stored hidden states, in GiB, for `engine.stored_boundaries: auto`. null: no limit."""
    megabytes_per_second: Annotated[float, Field(gt=0)] | None = None
    """Rate at which a rank reads and writes hidden states, in MB/s, for `engine.stored_boundaries: auto`. null: an
    assumption, which `s3t plan` shows. `benchmarks/hidden_states.py` measures it."""


class LedgerSettings(Section):
    """Where the ledger is."""

    url: Text | None = None
    """SQLAlchemy URL. null: SQLite in the run's folder. A cluster with remote storage needs postgresql+psycopg://.
    ${NAME} is replaced by that environment variable; a password must be given that way."""
    log_copy: Text | None = None
    """Folder on another disk than the run's. Each entry of the run's log is copied there as it is made, receipts with
    the keyed hashes of what they name. From this copy `s3t restore` repeats deletions that a backup lacks, and a run
    that is older than its copy is refused. null: no copy."""


class KeySettings(Section):
    """Where the keys are."""

    dir: Text | None = None
    """Folder of the secret key that hides ids in the ledger, and of the signing key. null: the folder `<run>.keys` next
    to a local run. It must not be inside the run's storage."""


_WITNESS = r"^https?://[^\s]+ [^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{44}$"


class LogSettings(Section):
    """Witnesses and timestamps of the run's published log (docs/transparency.md)."""

    witnesses: tuple[Annotated[str, Field(pattern=_WITNESS)], ...] = ()
    """Witnesses that get every checkpoint to cosign. Each is an address, a space, and the public key that
    `s3t witness init` prints."""
    timestamps: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    """Address of an RFC 3161 timestamp server that stamps checkpoints. null: none. Needs the extra
    `timestamps`."""
    timestamp_seconds: Annotated[float, Field(ge=0)] = 3600.0
    """Minimum time between two stamped checkpoints, in seconds."""


class Config(Section):
    """The configuration of a run. `s3t plan` shows its cost. docs/config.md is generated from this class."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    """Name of the run: at most 63 lower-case letters, digits, dots, dashes and underscores. It cannot
    change once the run has started."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed for all randomness: partition, orders, initialization, dropout. Recipe."""
    shards: Annotated[int, Field(ge=1, le=10_000)]
    """m, the number of shards. Each is one member of the ensemble. Recipe (through the partition)."""
    slices: Annotated[int, Field(ge=1, le=1_000)]
    """L, the number of slices per shard. Recipe (through the partition)."""
    budget: PositiveInt
    """B, the number of sequences per shard. Not part of the recipe: a larger budget retrains nothing."""
    order: Order = Order()
    model: Model
    task: Task = Task()
    ensemble: Literal["logits", "mean"] = "logits"
    """How the shards' models are combined. `logits`: run each shard's model and average the logits. `mean`: run one
    model with the mean of the adapters, of rank m x `lora.rank`, at the cost of one model; for text only. Affects
    serve, eval and generate, but no trained weights, so it can change between two starts."""
    data: Data
    lora: Lora
    optimizer: Optimizer = Optimizer()
    engine: Engine = Engine()
    workers: Workers = Workers()
    requeue: Requeue = Requeue()
    closure: Closure = Closure()
    storage: Storage
    ledger: LedgerSettings = LedgerSettings()
    keys: KeySettings = KeySettings()
    log: LogSettings = LogSettings()

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
