"""A command as a job: its exit codes, and its message when stopped. In separate processes, because it ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from s3t_ray.config.location import RunLocation, check_outlives_job
from s3t_ray.errors import ConfigError

ROOT = Path(__file__).parents[3]

WAITS = """
import signal, threading
from s3t_ray.cli.ray_job import run_as_job

def wait(name: str) -> None:
    try:
        print(f"waiting for {name}", flush=True)
        threading.Event().wait(60)
    finally:
        print("cleaned up", flush=True)

run_as_job(wait)
"""


def test_a_stop_says_what_it_means_at_once_and_cleans_up() -> None:
    job = subprocess.Popen(
        [sys.executable, "-c", WAITS, "it"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert job.stdout is not None
    assert job.stdout.readline() == "waiting for it\n"
    job.send_signal(signal.SIGTERM)
    out, err = job.communicate(timeout=60)
    assert job.returncode == 143
    assert out == "cleaned up\n"
    assert err == (
        "stopped; nothing published is lost: submit the same job again to resume where it stopped\n"
        "exit code 143 (stopped)\n"
    )


@pytest.mark.parametrize(
    ("script", "arguments", "code", "said"),
    [
        ("train", ["missing.yaml"], 2, "error: "),
        ("delete", ["nowhere", "--id", "x"], 2, "no run at"),
        ("delete", ["nowhere"], 2, "name what to delete"),
        ("serve", ["nowhere", "--tls-key", "key.pem"], 2, "must be given together"),
        ("serve", [], 2, "Missing argument"),
    ],
)
def test_refusals_are_those_of_the_command_line(
    script: str, arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    path = ROOT / "jobs" / f"{script}.py"
    done = subprocess.run([sys.executable, path, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr


def job_copy(folder: Path) -> Path:
    """A folder where Ray would unpack a job's working folder."""
    copy = folder / "working_dir_files" / "_ray_pkg_0"
    copy.mkdir(parents=True)
    return copy


def test_a_run_or_keys_in_a_jobs_own_copy_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = job_copy(tmp_path)
    lasting, passing = tmp_path / "runs", copy / "runs" / "mine"
    monkeypatch.chdir(copy)
    with pytest.raises(ConfigError, match=r"storage\.uri.* deleted after the job"):
        check_outlives_job(RunLocation(str(passing), "", lasting))
    with pytest.raises(ConfigError, match=r"keys\.dir.* deleted after the job"):
        check_outlives_job(RunLocation("s3://bucket/run", "", passing))
    for storage in (str(lasting), "s3://bucket/run"):
        check_outlives_job(RunLocation(storage, "", lasting))
    monkeypatch.chdir(tmp_path)
    check_outlives_job(RunLocation(str(passing), "", passing))


SAYS = """
from s3t_ray.cli.ray_job import run_as_job
from s3t_ray.errors import TrainError

def say(fail: bool = False) -> None:
    print("it ran")
    if fail:
        raise TrainError("the loss is not a number", "lower optimizer.lr")

run_as_job(say)
"""


@pytest.mark.parametrize(
    ("file", "said"),
    [("data/alpaca.keys/master.key", "data/alpaca.keys/master.key"), ("runs/alpaca/ledger.db", "runs/alpaca")],
)
def test_a_folder_packed_with_keys_or_a_run_is_refused(tmp_path: Path, file: str, said: str) -> None:
    copy = job_copy(tmp_path)
    (copy / file).parent.mkdir(parents=True)
    (copy / file).touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = partial(subprocess.run, [sys.executable, "-c", SAYS], env=environment, capture_output=True, text=True)
    done = run(cwd=copy, timeout=120)
    assert done.returncode == 2 and said in done.stderr and "it ran" not in done.stdout
    (copy / file).unlink()
    assert run(cwd=copy, timeout=120).stdout == "it ran\n"


def test_the_last_line_says_the_exit_code() -> None:
    """`ray job submit` itself ends with 1, whatever the job ended with."""
    program = [sys.executable, "-c", SAYS, "--fail"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 7
    assert done.stderr.splitlines()[-2:] == ["fix: lower optimizer.lr", "exit code 7 (TrainError)"]
