"""A command as a job: its exit codes, and what a stop says. In processes of their own, for it ends them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from s3t_ray.config.location import check_outlives_job
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
    assert err == "stopped; nothing published is lost: submit the same job again and it goes on where it stopped\n"


@pytest.mark.parametrize(
    ("script", "arguments", "code", "said"),
    [
        ("train", ["missing.yaml"], 2, "error: "),
        ("delete", ["nowhere", "--id", "x"], 2, "no run at"),
        ("delete", ["nowhere"], 2, "name what to delete"),
        ("serve", ["nowhere", "--tls-key", "key.pem"], 2, "come together"),
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


def test_a_run_in_a_jobs_own_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "working_dir_files" / "_ray_pkg_0"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(ConfigError, match="gone after it"):
        check_outlives_job(str(copy / "runs" / "mine"))
    check_outlives_job(str(tmp_path / "runs"))
    check_outlives_job("s3://bucket/run")
    monkeypatch.chdir(tmp_path)
    check_outlives_job(str(tmp_path / "runs"))
