"""TOFU: what exact unlearning scores on the benchmark by which others are judged (arXiv 2401.06121).

    python benchmarks/tofu.py --data TOFU_FOLDER --work FOLDER [--base MODEL_FOLDER]

An author is a subject. Rows: the base; one LoRA on all; one LoRA retrained without the forget set; S3T whole, right
after the receipt, healed, and trained without the authors from the beginning; gradient ascent, gradient difference and
NPO on the one LoRA. Without --base, a small Llama is trained first, on authors that are in no other set: its figures
compare rows with each other, and with no published ones. Writes benchmarks/results/claims/tofu.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchlib.approximate_unlearning import Method, unlearn
from benchlib.experiment_file import write_experiment
from benchlib.language_models import LanguageModels, Team
from benchlib.rival_training import Chains, Parts, Prefix, Settings, TrainedSystem, s3t, sisa
from benchlib.small_base import small_base
from benchlib.tofu_metrics import AnswerLosses, forget_quality, membership_auc, model_utility, rouge_l_recall

from s3t_ray.config.base_model import read_shape
from s3t_ray.data.slice_file import Row
from s3t_ray.report.page_model import Cell, ReportSection, ReportTable
from s3t_ray.store.layout import stage_folder
from s3t_ray.store.manifest import ADAPTER_FILE
from s3t_ray.store.store import Store
from s3t_ray.train.adapters import export_adapter

BASE_AUTHORS = range(40, 100)
"""The small base reads these; no other set has them."""
RECORDS_AN_AUTHOR = 20
METHODS: tuple[Method, ...] = ("gradient ascent", "gradient difference", "NPO")


@dataclass(frozen=True)
class Question:
    """A question with its answers."""

    question: str
    answer: str
    paraphrased: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Questions:
    forget: list[Question]
    retain: list[Question]
    real_authors: list[Question]
    world_facts: list[Question]
    strangers: list[str]  # contents that no model has seen


def main() -> None:
    arguments = _arguments()
    began = time.perf_counter()
    full = read_rows(arguments.data / "full.jsonl")
    base = arguments.base or small_base(
        arguments.work / "base", [text_of(row) for row in full if author_of(row) in BASE_AUTHORS]
    )
    retain = [row for row in full if author_of(row) < arguments.retain_authors]
    forget = [row for row in full if author_of(row) >= 200 - arguments.forget_authors]
    settings = Settings(
        base=base,
        task={"max_tokens": 256},
        layers=read_shape(base).layers,
        slices=2,
        lr=arguments.lr,
        epochs=arguments.epochs,
        seed=0,
    )
    table = _measure(arguments, settings, retain, forget)
    small = (
        ""
        if arguments.base
        else "The base is a small Llama that read 60 other authors for this; it knows nothing of the world. "
    )
    text = (
        f"{small}{arguments.retain_authors} authors kept and {arguments.forget_authors} forgotten, of TOFU's 200; "
        f"{arguments.questions} questions of each set.",
    )
    path = write_experiment(
        "tofu", "TOFU", (ReportSection(title="", text=text, tables=(table,)),), time.perf_counter() - began
    )
    print(path.name)
    for row in (table.columns, *table.rows):
        print("  ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="TOFU's JSONL files")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is trained")
    parser.add_argument("--base", type=Path, help="a causal language model; default: a small one, trained here")
    parser.add_argument("--retain-authors", type=int, default=4)
    parser.add_argument("--forget-authors", type=int, default=1, help="the last ones: at most 2 have paraphrases")
    parser.add_argument("--questions", type=int, default=20, help="of each set")
    parser.add_argument("--tokens", type=int, default=40, help="of an answer")
    parser.add_argument("--samples", type=int, default=3, help="answers drawn for each extraction")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=5e-3)
    return parser.parse_args()


def _measure(
    arguments: argparse.Namespace, settings: Settings, retain: list[dict[str, str]], forget: list[dict[str, str]]
) -> ReportTable:
    orders: tuple[Prefix, ...] = ((0, 1), (1, 0))
    work: Path = arguments.work
    everything, kept = (_parts(rows, arguments.shards) for rows in (retain + forget, retain))
    one, again = (
        sisa(settings, _whole(parts), work / name, slices=False)
        for name, parts in (("one", everything), ("again", kept))
    )
    before = s3t(settings, everything, orders, work / "s3t")
    hit = {place for place, rows in everything.items() if rows != kept.get(place)}
    live = {key: chain for key, chain in before.chains.items() if not any((key[0], s) in hit for s in key[1])}
    healed = s3t(settings, kept, orders, work / "s3t", live)
    fresh = s3t(settings, kept, orders, work / "fresh")
    same = _same_bytes(healed, fresh)

    models = LanguageModels(settings.base, before.config.task)
    teams: dict[str, Team] = {"base": ()}

    def add(name: str, folders: Sequence[Path]) -> None:
        for folder in folders:
            models.add(folder.name, folder)
        teams[name] = tuple(folder.name for folder in folders)

    add("one LoRA on all", _exports(one, [(0, (0, 1))], work / "x-one"))
    add("one LoRA, retrained", _exports(again, [(0, (0, 1))], work / "x-again"))
    for name, system, chains in (
        ("S3T, whole", before, before.chains),
        ("S3T, after the receipt", before, live),
        ("S3T, healed", healed, healed.chains),
        ("S3T, never saw them", fresh, fresh.chains),
    ):
        deepest = [_deepest(chains, shard, orders) for shard in range(arguments.shards)]
        add(name, _exports(system, [(s, p) for s, p in enumerate(deepest) if p], work / f"x-{len(teams)}"))
    gone, stays = ([content_of(row["question"], row["answer"]) for row in rows] for rows in (forget, retain))
    seconds: dict[str, float] = {
        "one LoRA on all": one.cpu_seconds,
        "one LoRA, retrained": again.cpu_seconds,
        "S3T, whole": before.cpu_seconds,
        "S3T, after the receipt": 0.0,
        "S3T, healed": healed.cpu_seconds,
        "S3T, never saw them": fresh.cpu_seconds,
    }
    for number, method in enumerate(METHODS):
        began = time.process_time()
        adapter = work / "x-one" / "a0-one"
        out = work / f"y{number}"
        unlearn(method, settings.base, adapter, before.config.task, gone, stays, out, settings.lr / 5, 3)
        seconds[method] = time.process_time() - began
        add(method, [out])
    questions = _questions(arguments, before.config.task.max_tokens)
    found = {name: _losses(models, team, questions, arguments.tokens) for name, team in teams.items()}
    rows: list[tuple[Cell, ...]] = []
    for name, team in teams.items():
        mine = found[name]
        utility, parts = model_utility(mine["retain"], mine["real authors"], mine["world facts"])
        own = found["S3T, never saw them" if name.startswith("S3T") else "one LoRA, retrained"]["forget"]
        drawn = _best_of(models, team, questions.forget, arguments)
        strangers = models.losses(team, questions.strangers)
        equal = (same if name in ("S3T, healed", "S3T, never saw them") else False) if name.startswith("S3T") else None
        rows.append(
            (
                name,
                forget_quality(mine["forget"], own),
                utility,
                parts["probability, retain"],
                parts["ROUGE, retain"],
                float(mine["forget"].recall_N.mean()),
                drawn,
                membership_auc(mine["forget"].right_N.tolist(), strangers),
                seconds.get(name),
                None if equal is None else "yes" if equal else "no",
            )
        )
    return ReportTable(
        stem="tofu",
        title="Forgetting and what it costs",
        columns=(
            "model", "forget quality", "model utility", "probability, retain", "ROUGE, retain", "extraction, greedy",
            f"extraction, best of {arguments.samples}", "membership AUC", "CPU seconds", "bytes as never trained",
        ),
        rows=tuple(rows),
        caption="Forget quality: p of the KS test of truth ratios against a retraining of the same system (S3T's for "
        "S3T, else the one LoRA's). Extraction: ROUGE-L recall of the forgotten answers. Membership AUC: forgotten "
        "answers against authors that nobody trained on; 0.5 tells nothing. CPU seconds of training; for S3T healed of "
        "the healing alone.",
    )  # fmt: skip


def _parts(rows: Sequence[dict[str, str]], shards: int) -> Parts:
    """An author falls into one slice, by number: authors take turns."""
    parts: dict[tuple[int, int], list[Row]] = {(shard, index): [] for shard in range(shards) for index in range(2)}
    for row in rows:
        content = content_of(row["question"], row["answer"])
        place = author_of(row) % shards, author_of(row) // shards % 2
        parts[place].append(Row(row["id"], content, hashlib.sha256(content.encode()).digest()))
    return parts


def _whole(parts: Parts) -> Parts:
    found: dict[tuple[int, int], list[Row]] = {(0, 0): [], (0, 1): []}
    for (_, index), rows in parts.items():
        found[0, index] += rows
    return found


def _deepest(chains: Chains, shard: int, orders: Sequence[Prefix]) -> Prefix:
    best: Prefix = ()
    for order in orders:
        for depth in range(1, len(order) + 1):
            if (shard, order[:depth]) in chains and depth > len(best):
                best = order[:depth]
    return best


def _exports(system: TrainedSystem, keys: Sequence[tuple[int, Prefix]], out: Path) -> list[Path]:
    store = Store.open(system.config.storage.uri)
    folders = []
    for shard, prefix in keys:
        folders.append(
            export_adapter(store, system.chains[shard, prefix], out / f"a{shard}-{out.name.removeprefix('x-')}")
        )
    return folders


def _same_bytes(one: TrainedSystem, other: TrainedSystem) -> bool:
    """Whether every adapter of the two is the same, byte for byte."""
    stores = [Store.open(system.config.storage.uri) for system in (one, other)]
    return all(
        stores[0].read_bytes(f"{stage_folder(one.chains[key][-1])}/{ADAPTER_FILE}")
        == stores[1].read_bytes(f"{stage_folder(other.chains[key][-1])}/{ADAPTER_FILE}")
        for key in other.chains
    )


def _questions(arguments: argparse.Namespace, longest: int) -> Questions:
    def read(name: str) -> list[Question]:
        return [_question(row) for row in read_rows(arguments.data / f"{name}_perturbed.jsonl")]

    most = arguments.questions
    forget = read("forget01")[-RECORDS_AN_AUTHOR * arguments.forget_authors :]
    strangers = [
        content_of(row["question"], row["answer"]) for row in read_rows(arguments.data / "holdout10.jsonl")[:most]
    ]
    return Questions(
        forget[:most], read("retain")[:most], read("real_authors")[:most], read("world_facts")[:most], strangers
    )


def _question(row: dict[str, Any]) -> Question:
    answer = str(row["answer"])
    wrong = row["perturbed_answer"]
    return Question(str(row["question"]), answer, str(row.get("paraphrased_answer", answer)), tuple(wrong))


def _losses(models: LanguageModels, team: Team, questions: Questions, tokens: int) -> dict[str, AnswerLosses]:
    sets = {
        "forget": questions.forget,
        "retain": questions.retain,
        "real authors": questions.real_authors,
        "world facts": questions.world_facts,
    }
    found = {}
    for name, own in sets.items():
        said = models.answers(team, [each.question for each in own], tokens)
        found[name] = AnswerLosses(
            np.array(models.losses(team, [content_of(each.question, each.answer) for each in own])),
            np.array(models.losses(team, [content_of(each.question, each.paraphrased) for each in own])),
            np.array(
                models.losses(team, [content_of(each.question, wrong) for each in own for wrong in each.wrong])
            ).reshape(len(own), -1),
            np.array([rouge_l_recall(text, each.answer) for text, each in zip(said, own, strict=True)]),
        )
    return found


def _best_of(models: LanguageModels, team: Team, questions: Sequence[Question], arguments: argparse.Namespace) -> float:
    prompts = [each.question for each in questions]
    drawn = [models.answers(team, prompts, arguments.tokens, seed) for seed in range(arguments.samples)]
    best = [
        max(rouge_l_recall(text, each.answer) for text in texts)
        for each, texts in zip(questions, zip(*drawn, strict=True), strict=True)
    ]
    return float(np.mean(best))


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def author_of(row: dict[str, str]) -> int:
    return int(row["author"].removeprefix("author-"))


def content_of(question: str, answer: str) -> str:
    return json.dumps({"instruction": question, "input": "", "output": answer})


def text_of(row: dict[str, str]) -> str:
    return f"{row['question']}\n{row['answer']}"


if __name__ == "__main__":
    main()
