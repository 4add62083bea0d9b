"""The GPU kit: all of it runs on a CPU at toy sizes; its decisions and results, without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from gpu.points import OtherCard, Points, measured
from gpu.run import environment
from gpu.timetable import CLOSING_SECONDS, EXPERIMENTS, LEAST_SECONDS, limit_of, to_run
from gpu.wheels import Piece, cut, folders, pinned
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[3]
CARD = {"device": "a card"}


def kit(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks/gpu/run.py"), "--out", str(out), *options]
    return subprocess.run(command, cwd=out.parent, capture_output=True, text=True)


def test_a_dry_run_measures_everything_and_a_second_one_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = kit(out, "--dry", "--bundle", str(tmp_path / "all.tar.gz"))
    assert first.returncode == 0, first.stdout + first.stderr
    names = {experiment.name for experiment in EXPERIMENTS}
    assert measured(out) == names
    documents = {name: json.loads((out / f"{name}.json").read_text()) for name in names}
    assert all(document["points"] and not document["failed"] for document in documents.values())
    assert documents["card_rates"]["points"]["replay"]["equal"] is True
    assert documents["engine_13b"]["points"]["replay"]["equal"] is True
    assert documents["engine_13b"]["points"]["depth 2"]["flops_per_token"] > 0
    assert documents["trainer_8b"]["points"]["engine over Trainer, full packs"]["ratio"] > 0
    assert documents["tofu"]["points"]["tofu"]["replay_equal"] is True
    assert {path.name for path in out.glob("*.log")} == {f"{name}.log" for name in names}
    assert (tmp_path / "all.tar.gz").stat().st_size > 0
    second = kit(out, "--dry")
    assert second.returncode == 0
    assert all(f"{name}:" not in second.stdout for name in names), "nothing is measured twice"


def test_an_experiment_inherits_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("HF_HOME", "/kept")
    found = environment(dry=True)
    assert "LOCAL_RANK" not in found
    assert found["HF_HOME"] == "/kept"


def test_no_experiment_begins_when_the_minutes_are_used_up(tmp_path: Path) -> None:
    run = kit(tmp_path / "out", "--dry", "--minutes", "0.1")
    assert run.returncode == 1
    assert run.stdout.count("not started") == len(EXPERIMENTS)
    assert not list((tmp_path / "out").iterdir())


def test_an_experiment_is_ended_by_its_limit_and_the_next_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from argparse import Namespace

    from gpu import run as kit_run

    monkeypatch.setattr(kit_run, "environment", lambda dry: {"PYTHONPATH": f"{ROOT}:{ROOT}/benchmarks"})
    given = Namespace(out=tmp_path, dry=True, work=tmp_path, base=None, records=None)
    # No process imports torch in so short a time.
    assert kit_run.run(EXPERIMENTS[0], 0.05, given) == "stopped at its time limit"
    assert measured(tmp_path) == set()


def test_what_the_kit_needs_of_the_engine_loads_nothing_else(tmp_path: Path) -> None:
    """A machine that only computes has neither Ray nor a database nor what reads and hides records."""
    program = (
        "import gpu.stage_lab, gpu.hf_trainer, s3t_ray.train.trainer, s3t_ray.ensemble.ensemble, sys, json\n"
        "print(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "benchmarks",
        env={"PYTHONPATH": f"{ROOT}:{ROOT}/benchmarks", "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(run.stdout.splitlines()[-1]))
    assert {"torch", "deepspeed", "pydantic"} <= loaded
    assert not loaded & {"ray", "sqlalchemy", "blake3", "cryptography", "datasketch", "fastapi", "typer"}


# The timetable


@given(st.floats(0, 4000), st.sets(st.sampled_from([each.name for each in EXPERIMENTS])))
def test_nothing_runs_past_the_minutes(seconds: float, done: set[str]) -> None:
    left = seconds
    for experiment in to_run(done):
        assert experiment.name not in done
        limit = limit_of(experiment, left)
        if limit is None:
            assert left < LEAST_SECONDS + CLOSING_SECONDS
            continue
        assert 0 < limit <= min(experiment.seconds, left - CLOSING_SECONDS)
        left -= limit
    assert left >= min(seconds, 0)


def test_the_most_valuable_comes_first_and_others_only_when_asked_for() -> None:
    assert [each.name for each in to_run(())][:2] == ["card_rates", "engine_13b"]
    assert [each.name for each in to_run({"card_rates"}, ("card_rates", "tofu"))] == ["tofu"]


def test_every_experiment_has_its_file() -> None:
    files = {path.stem for path in (ROOT / "benchmarks/gpu/experiments").glob("*.py")} - {"__init__"}
    assert files == {each.name for each in EXPERIMENTS}


# The points


@dataclass(frozen=True)
class Figure:
    seconds: float


def failing(error: Exception) -> Callable[[], object]:
    def call() -> object:
        raise error

    return call


def test_points_are_kept_one_by_one_and_only_the_missing_ones_measured(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    first = Points(path, "x", CARD)
    first.measure("a", lambda: Figure(1.5))
    first.measure("b", failing(RuntimeError("out of memory")))
    assert json.loads(path.read_text())["points"] == {"a": {"seconds": 1.5}}
    first.close()
    assert first.failed and measured(tmp_path) == set()
    assert "out of memory" in json.loads(path.read_text())["failed"]["b"]

    second = Points(path, "x", CARD)
    assert second.has("a") and not second.has("a", "b")
    second.measure("a", failing(AssertionError("measured twice")))
    second.measure("b", lambda: {"seconds": 2})
    second.close()
    assert measured(tmp_path) == {"x"}
    assert second.get("a") == {"seconds": 1.5}
    other = Points(tmp_path / "y.json", "y", CARD)
    assert other.beside("x", "a") == {"seconds": 1.5}
    assert other.beside("x", "c") is None and other.beside("z", "a") is None


def test_results_of_two_cards_do_not_mix(tmp_path: Path) -> None:
    Points(tmp_path / "x.json", "x", CARD)
    with pytest.raises(OtherCard, match="another folder"):
        Points(tmp_path / "x.json", "x", {"device": "another card"})


# The wheels


@given(st.lists(st.integers(1, 500), min_size=1, max_size=12), st.integers(10, 200))
def test_what_is_carried_is_whole_and_fits(sizes: list[int], limit: int) -> None:
    files = {Path(f"{number}.whl"): size for number, size in enumerate(sizes)}
    pieces = [piece for file, size in files.items() for piece in cut(file, size, limit)]
    packed = folders(pieces, limit)
    assert all(0 < sum(piece.end - piece.start for piece in folder) <= limit for folder in packed)
    carried = sorted((piece for folder in packed for piece in folder), key=lambda piece: (piece.file, piece.start))
    assert carried == sorted(pieces, key=lambda piece: (piece.file, piece.start))
    for file, size in files.items():
        own = sorted((piece for piece in carried if piece.file == file), key=lambda piece: piece.name)
        assert [piece.start for piece in own] == [0, *(piece.end for piece in own[:-1])]
        assert own[-1].end == size
        assert own == [Piece(file, 0, size, None)] or all(piece.part is not None for piece in own)


def test_the_missing_packages_are_those_that_the_tests_run_with() -> None:
    assert pinned(["deepspeed"], ROOT / "constraints.txt")[0].startswith("deepspeed==0.")


def test_parts_are_joined_and_options_passed_on(tmp_path: Path) -> None:
    """`start.sh` with a stand-in for Python: the parts of a file came in two transfers."""
    carried, site, out = tmp_path / "carried", tmp_path / "site", tmp_path / "out"
    for number, text in (("000", "first "), ("001", "second")):
        (carried / number).mkdir(parents=True)
        (carried / number / f"a.whl.part-{number}").write_text(text)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$PYTHONPATH :: $@"\ncase "$1" in benchmarks*) exit 3;; esac\n')
    python.chmod(0o755)
    run = subprocess.run(
        ["sh", str(ROOT / "benchmarks/gpu/start.sh"), str(carried), str(out), "--minutes", "7"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python), "S3T_KIT_SITE": str(site), "PYTHONPATH": "before"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 3, "the kit's own exit code"
    assert (site / "files" / "a.whl").read_text() == "first second"
    assert f"{site}/packages:before :: benchmarks/gpu/run.py" in run.stdout
    assert f"--bundle {out}/gpu.tar.gz --minutes 7" in run.stdout
