"""Scores exact unlearning on TOFU, the common benchmark of approximate methods (arXiv 2401.06121).

    python benchmarks/tofu.py --data TOFU_FOLDER --work FOLDER [--base MODEL_FOLDER]

Each author is a subject. Rows: the base; one LoRA on all authors; one LoRA retrained without the forget set; S3T before
the deletion, right after the receipt, healed, and never trained on the authors; gradient ascent, gradient difference
and NPO on the one LoRA. A second table lists the nine components of model utility, a third the attack of arXiv
2505.24379 with the models from before and after a deletion. Without --base, a small Llama is trained first, on authors
that are in no other set. Its figures can only be compared with each other, not with published ones. Writes
benchmarks/results/claims/tofu.json, or tofu-NAME.json with --name.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchlib.experiment_file import write_experiment
from benchlib.language_models import Guidance, LanguageModels, Team
from benchlib.rival_training import Settings, s3t_config
from benchlib.small_base import small_base
from benchlib.tofu_data import (
    AUTHORS,
    BASE_AUTHORS,
    Question,
    Questions,
    author_of,
    content_of,
    read_questions,
    read_rows,
    text_of,
)
from benchlib.tofu_metrics import AnswerLosses, forget_quality, membership_auc, model_utility, rouge_l_recall
from benchlib.tofu_systems import Contender, Task, train_all

from s3t_ray.config.base_model import read_shape
from s3t_ray.report.page_model import Cell, ReportSection, ReportTable


@dataclass(frozen=True)
class Judge:
    """The models and the questions that they are asked."""

    models: LanguageModels
    questions: Questions
    tokens: int
    samples: int

    def add(self, name: str, contender: Contender) -> Team:
        """Load a row's adapters; the team that answers."""
        team = tuple(f"{name} {at}".replace(".", "") for at in range(len(contender.folders)))
        for member, folder in zip(team, contender.folders, strict=True):
            self.models.add(member, folder)
        return team

    def losses(self, team: Team) -> dict[str, AnswerLosses]:
        sets = {
            "forget": self.questions.forget,
            "retain": self.questions.retain,
            "real authors": self.questions.real_authors,
            "world facts": self.questions.world_facts,
        }
        return {name: self._losses(team, own) for name, own in sets.items()}

    def _losses(self, team: Team, own: Sequence[Question]) -> AnswerLosses:
        said = self.models.answers(team, [each.question for each in own], self.tokens)
        wrong = [content_of(each.question, text) for each in own for text in each.wrong]
        return AnswerLosses(
            np.array(self.models.losses(team, [content_of(each.question, each.answer) for each in own])),
            np.array(self.models.losses(team, [content_of(each.question, each.paraphrased) for each in own])),
            np.array(self.models.losses(team, wrong)).reshape(len(own), -1),
            np.array([rouge_l_recall(text, each.answer) for text, each in zip(said, own, strict=True)]),
        )

    def best_drawn(self, team: Team) -> float:
        """Mean over the forgotten questions of the best of several answers drawn."""
        drawn = [self._recalls(team, seed, None) for seed in range(self.samples)]
        return float(np.max(drawn, axis=0).mean())

    def extracted(self, team: Team, guidance: Guidance | None = None) -> float:
        """Mean recall of the forgotten answers by greedy decoding."""
        return float(np.mean(self._recalls(team, None, guidance)))

    def _recalls(self, team: Team, seed: int | None, guidance: Guidance | None) -> list[float]:
        own = self.questions.forget
        said = self.models.answers(team, [each.question for each in own], self.tokens, seed, guidance)
        return [rouge_l_recall(text, each.answer) for text, each in zip(said, own, strict=True)]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    began = time.perf_counter()
    task = _task(arguments)
    contenders, batched = train_all(task)
    questions = read_questions(arguments.data, arguments.forget_authors, arguments.questions)
    words = s3t_config(task.settings, task.work).task
    judge = Judge(LanguageModels(task.settings.base, words), questions, arguments.tokens, arguments.samples)
    teams = {name: judge.add(name, contender) for name, contender in contenders.items()}
    found = {name: judge.losses(team) for name, team in teams.items()}
    tables = (
        _table(judge, contenders, teams, found),
        _parts_table(found),
        _attack_table(judge, teams, {name: judge.add(f"batch {name}", each) for name, each in batched.items()}, task),
    )
    section = ReportSection(title="", text=(_about(arguments, task),), tables=tables)
    name = f"tofu-{arguments.name}" if arguments.name else "tofu"
    path = write_experiment(name, "TOFU", (section,), time.perf_counter() - began)
    print(path.name)
    for table in tables:
        for row in (table.columns, *table.rows):
            print("  ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="TOFU's JSONL files")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is trained")
    parser.add_argument("--base", type=Path, help="a causal language model; default: a small one, trained here")
    parser.add_argument("--name", help="of the base, in the names of the results")
    parser.add_argument("--retain-authors", type=int, default=8)
    parser.add_argument("--forget-authors", type=int, default=1, help="the last ones: at most 10 have paraphrases")
    parser.add_argument("--batched", type=int, default=2, help="authors deleted together with them, for the attack")
    parser.add_argument("--questions", type=int, default=20, help="of each set")
    parser.add_argument("--tokens", type=int, default=40, help="of an answer")
    parser.add_argument("--samples", type=int, default=3, help="answers drawn for each extraction")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16, help="records per step")
    parser.add_argument("--lr", type=float, default=5e-3)
    return parser.parse_args()


def _task(arguments: argparse.Namespace) -> Task:
    full = read_rows(arguments.data / "full.jsonl")
    base = arguments.base or small_base(
        arguments.work / "base", [text_of(row) for row in full if author_of(row) in BASE_AUTHORS]
    )
    settings = Settings(
        base=base,
        task={"max_tokens": 256},
        layers=read_shape(base).layers,
        slices=2,
        lr=arguments.lr,
        epochs=arguments.epochs,
        seed=0,
        batch_records=arguments.batch,
    )
    return Task(
        settings,
        [row for row in full if author_of(row) < arguments.retain_authors],
        [row for row in full if author_of(row) >= AUTHORS - arguments.forget_authors],
        arguments.batched,
        arguments.shards,
        arguments.work,
    )


def _about(arguments: argparse.Namespace, task: Task) -> str:
    small = "" if arguments.base else "The base is a small Llama that read 60 other authors and nothing of the world. "
    return (
        f"{small}{arguments.retain_authors} authors kept and {arguments.forget_authors} forgotten, of TOFU's 200; "
        f"{arguments.questions} questions of each set; {arguments.shards} shards of 2 slices in both orders, "
        f"{arguments.epochs} epochs, learning rate {arguments.lr:g}."
    )


def _table(
    judge: Judge,
    contenders: Mapping[str, Contender],
    teams: Mapping[str, Team],
    found: Mapping[str, dict[str, AnswerLosses]],
) -> ReportTable:
    rows: list[tuple[Cell, ...]] = []
    for name, contender in contenders.items():
        mine, team = found[name], teams[name]
        own = found["S3T, never saw them" if name.startswith("S3T") else "one LoRA, retrained"]["forget"]
        strangers = judge.models.losses(team, judge.questions.strangers)
        equal = contender.same_bytes
        rows.append(
            (
                name,
                forget_quality(mine["forget"], own),
                model_utility(mine["retain"], mine["real authors"], mine["world facts"])[0],
                float(mine["forget"].recall_N.mean()),
                judge.best_drawn(team),
                membership_auc(mine["forget"].right_N.tolist(), strangers),
                contender.pruned_seconds,
                contender.restored_seconds,
                contender.cpu_seconds,
                None if equal is None else "yes" if equal else "no",
            )
        )
    return ReportTable(
        stem="tofu",
        title="Forgetting and what it costs",
        columns=(
            "model", "forget quality", "model utility", "extraction, greedy", f"extraction, best of {judge.samples}",
            "membership AUC", "seconds to pruned", "seconds to restored", "CPU seconds", "bytes as never trained",
        ),
        rows=tuple(rows),
        caption="Forget quality: p of the KS test of truth ratios against a retraining of the same system (S3T's for "
        "S3T, else the one LoRA's). Extraction: ROUGE-L recall of the forgotten answers. Membership AUC: forgotten "
        "answers against authors that nobody trained on; 0.5 tells nothing. Seconds to pruned: until nothing answers "
        "that saw the authors; an ensemble in this process, without a cluster. CPU seconds of training.",
    )  # fmt: skip


def _parts_table(found: Mapping[str, dict[str, AnswerLosses]]) -> ReportTable:
    rows: list[tuple[Cell, ...]] = []
    columns: tuple[str, ...] = ()
    for name, mine in found.items():
        parts = model_utility(mine["retain"], mine["real authors"], mine["world facts"])[1]
        columns = tuple(parts)
        rows.append((name, *parts.values()))
    return ReportTable(
        stem="tofu-utility",
        title="The nine parts of model utility",
        columns=("model", *columns),
        rows=tuple(rows),
        caption="Model utility is their harmonic mean: 0 where one of them is 0.",
    )


def _attack_table(judge: Judge, teams: Mapping[str, Team], batched: Mapping[str, Team], task: Task) -> ReportTable:
    """What somebody with the models before and after gets of the forgotten answers."""
    befores = {"one LoRA, retrained": "one LoRA on all"}
    authors = len({author_of(row) for row in task.forget})
    rows: list[tuple[Cell, ...]] = []
    for deleted, afters in ((authors, teams), (authors + task.batched, batched)):
        for name in ("one LoRA, retrained", "S3T, after the receipt", "S3T, healed"):
            before = teams[befores.get(name, "S3T, whole")]
            both = judge.extracted(before, Guidance(afters[name]))
            rows.append((name, deleted, judge.extracted(afters[name]), judge.extracted(before), both))
    guidance = Guidance(())
    return ReportTable(
        stem="tofu-attack",
        title="What the models before and after a deletion tell together",
        columns=("model after", "authors deleted", "extraction, after", "extraction, before", "extraction, both"),
        rows=tuple(rows),
        caption="ROUGE-L recall of the forgotten authors' answers by greedy decoding: from the model after alone, from "
        f"the model before alone, and from both (arXiv 2505.24379, weight {guidance.weight:g}, tokens at least "
        f"{guidance.share:g} as likely as the likeliest).",
    )


if __name__ == "__main__":
    main()
