"""The benchmarks that `task.benchmark` can name: GLUE, SuperGLUE and image classification.

In: a config as written, before validation. Out: the config with the benchmark's fields filled in where they were not
set. Class names follow the order of the published label numbers; metrics are those of the benchmark. The data is read
from the hub unless `data.path` names a copy with the same fields (for images: `image` and `label`). Never accesses the
network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from s3t_ray.config.refuse import refusal
from s3t_ray.config.tasks import WHOLE_TEXT, TaskName

if TYPE_CHECKING:
    from s3t_ray.config.task_section import Task

BenchmarkName = Literal[
    "sst2", "cola", "qqp", "qnli", "mrpc", "mnli", "stsb", "rte",
    "boolq", "copa", "wic", "cb", "multirc", "wsc",
    "cifar10", "cifar100", "tiny_imagenet",
]  # fmt: skip

_GLUE, _SUPERGLUE = "nyu-mll/glue", "aps/super_glue"
_TRUE = ("false", "true")


@dataclass(frozen=True)
class Benchmark:
    """One task of a benchmark."""

    path: str
    """Hub name of the data set."""
    labels: tuple[str, ...]
    """Empty: regression."""
    text: str
    pair: str | None
    metrics: tuple[str, ...]
    holdout_split: str = "validation"
    id_field: str | None = "idx"
    columns: Mapping[str, str] | None = None
    """Our column names -> those of the image and its class; None: a text benchmark."""
    has_subset: bool = True
    """Whether the hub's data set contains several benchmarks, each in a subset with its name."""

    @property
    def kind(self) -> TaskName:
        if self.columns is not None:
            return "image_classification"
        return "classification" if self.labels else "regression"

    def task(self) -> dict[str, Any]:
        """The fields of the `task` section that the benchmark sets."""
        fields = {"kind": self.kind, "labels": list(self.labels), "text": self.text, "metrics": list(self.metrics)}
        return fields if self.pair is None else {**fields, "pair": self.pair}


_CIFAR_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Spelled as on the hub, where "cra" is the crab.
_CIFAR_100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch cra crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
# WordNet ids, as in the hub's data set.
_TINY_IMAGENET = """
    n01443537 n01629819 n01641577 n01644900 n01698640 n01742172 n01768244 n01770393 n01774384 n01774750 n01784675
    n01882714 n01910747 n01917289 n01944390 n01950731 n01983481 n01984695 n02002724 n02056570 n02058221 n02074367
    n02094433 n02099601 n02099712 n02106662 n02113799 n02123045 n02123394 n02124075 n02125311 n02129165 n02132136
    n02165456 n02226429 n02231487 n02233338 n02236044 n02268443 n02279972 n02281406 n02321529 n02364673 n02395406
    n02403003 n02410509 n02415577 n02423022 n02437312 n02480495 n02481823 n02486410 n02504458 n02509815 n02666347
    n02669723 n02699494 n02769748 n02788148 n02791270 n02793495 n02795169 n02802426 n02808440 n02814533 n02814860
    n02815834 n02823428 n02837789 n02841315 n02843684 n02883205 n02892201 n02909870 n02917067 n02927161 n02948072
    n02950826 n02963159 n02977058 n02988304 n03014705 n03026506 n03042490 n03085013 n03089624 n03100240 n03126707
    n03160309 n03179701 n03201208 n03255030 n03355925 n03373237 n03388043 n03393912 n03400231 n03404251 n03424325
    n03444034 n03447447 n03544143 n03584254 n03599486 n03617480 n03637318 n03649909 n03662601 n03670208 n03706229
    n03733131 n03763968 n03770439 n03796401 n03814639 n03837869 n03838899 n03854065 n03891332 n03902125 n03930313
    n03937543 n03970156 n03977966 n03980874 n03983396 n03992509 n04008634 n04023962 n04070727 n04074963 n04099969
    n04118538 n04133789 n04146614 n04149813 n04179913 n04251144 n04254777 n04259630 n04265275 n04275548 n04285008
    n04311004 n04328186 n04356056 n04366367 n04371430 n04376876 n04398044 n04399382 n04417672 n04456115 n04465666
    n04486054 n04487081 n04501370 n04507155 n04532106 n04532670 n04540053 n04560804 n04562935 n04596742 n04598010
    n06596364 n07056680 n07583066 n07614500 n07615774 n07646821 n07647870 n07657664 n07695742 n07711569 n07715103
    n07720875 n07749582 n07753592 n07768694 n07871810 n07873807 n07875152 n07920052 n07975909 n08496334 n08620881
    n08742578 n09193705 n09246464 n09256479 n09332890 n09428293 n12267677 n12520864 n13001041 n13652335 n13652994
    n13719102 n14991210
"""


def _images(path: str, labels: tuple[str, ...], holdout_split: str, **columns: str) -> Benchmark:
    """An image benchmark. Its rows have no ids, so they are derived from the images."""
    return Benchmark(path, labels, WHOLE_TEXT, None, ("accuracy",), holdout_split, "auto", columns, has_subset=False)


BENCHMARKS: Mapping[str, Benchmark] = {
    "sst2": Benchmark(_GLUE, ("negative", "positive"), "{sentence}", None, ("accuracy",)),
    "cola": Benchmark(_GLUE, ("unacceptable", "acceptable"), "{sentence}", None, ("matthews",)),
    "qqp": Benchmark(_GLUE, ("not_duplicate", "duplicate"), "{question1}", "{question2}", ("accuracy", "f1")),
    "qnli": Benchmark(_GLUE, ("entailment", "not_entailment"), "{question}", "{sentence}", ("accuracy",)),
    "mrpc": Benchmark(_GLUE, ("not_equivalent", "equivalent"), "{sentence1}", "{sentence2}", ("accuracy", "f1")),
    "mnli": Benchmark(
        _GLUE,
        ("entailment", "neutral", "contradiction"),
        "{premise}",
        "{hypothesis}",
        ("accuracy",),
        holdout_split="validation_matched",
    ),
    "stsb": Benchmark(_GLUE, (), "{sentence1}", "{sentence2}", ("pearson", "spearman")),
    "rte": Benchmark(_GLUE, ("entailment", "not_entailment"), "{sentence1}", "{sentence2}", ("accuracy",)),
    "boolq": Benchmark(_SUPERGLUE, _TRUE, "{question}", "{passage}", ("accuracy",)),
    # There is no multiple-choice head, so the pair contains both choices and the class selects one.
    "copa": Benchmark(
        _SUPERGLUE,
        ("choice1", "choice2"),
        "{premise} What was the {question} of this?",
        "{choice1} Or: {choice2}",
        ("accuracy",),
    ),
    "wic": Benchmark(_SUPERGLUE, _TRUE, "{word}: {sentence1}", "{word}: {sentence2}", ("accuracy",)),
    "cb": Benchmark(
        _SUPERGLUE,
        ("entailment", "contradiction", "neutral"),
        "{premise}",
        "{hypothesis}",
        ("accuracy", "f1_macro"),
    ),
    # Its `idx` is not a single number. F1 is over all answers (F1a).
    "multirc": Benchmark(_SUPERGLUE, _TRUE, "{paragraph}", "{question} {answer}", ("f1", "accuracy"), id_field=None),
    "wsc": Benchmark(_SUPERGLUE, _TRUE, "{span2_text}: {text}", "{span1_text}", ("accuracy",)),
    "cifar10": _images("uoft-cs/cifar10", _CIFAR_10, "test", image="img", label="label"),
    "cifar100": _images("uoft-cs/cifar100", tuple(_CIFAR_100.split()), "test", image="img", label="fine_label"),
    "tiny_imagenet": _images(
        "zh-plus/tiny-imagenet", tuple(_TINY_IMAGENET.split()), "valid", image="image", label="label"
    ),
}


def fill_benchmark(tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` with the unset fields that `task.benchmark` sets. Malformed sections are left unchanged for validation."""
    task, data = tree.get("task"), tree.get("data", {})
    if not isinstance(task, dict) or not isinstance(data, dict):
        return tree
    name = task.get("benchmark")
    if not isinstance(name, str) or name not in BENCHMARKS:
        return tree
    found = BENCHMARKS[name]
    # A user's copy of the data has its own files and splits.
    place = {} if "path" in data else {"path": found.path, "holdout_split": found.holdout_split}
    if place and found.has_subset:
        place["subset"] = name
    rest: dict[str, Any] = {"id_field": found.id_field, "on_malformed": "set_aside"} if place else {}
    if place and found.columns is not None:
        rest["columns"] = dict(found.columns)
    return {**tree, "task": {**found.task(), **task}, "data": {**place, **rest, **data}}


def check_benchmark(task: Task) -> None:
    """Raise a refusal if a field contradicts `task.benchmark`."""
    if task.benchmark is None:
        return
    found = BENCHMARKS[task.benchmark]
    for field, wanted, given in (
        ("kind", found.kind, task.kind),
        ("labels", found.labels, task.labels),
        ("text", found.text, task.text),
        ("pair", found.pair, task.pair),
    ):
        if given != wanted:
            shown = list(wanted) if isinstance(wanted, tuple) else wanted
            raise refusal(
                f"task.{field}",
                list(given) if isinstance(given, tuple) else given,
                f"task.benchmark {task.benchmark} has {shown}",
                f"remove task.{field}, or remove task.benchmark",
            )
