"""A cluster as an operator runs it: four raylets behind one token, a node lost, a sweep, a service, deletions.

Nodes start by the lines of docs/cluster.md; training, sweep, service and deletion are submitted by the README's, from a
folder that has nothing else of the cluster.

The tests share one cluster, one trained run and its service, and each stands by itself: it can run alone, and in any
order. Each deletes records of its own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from s3t_ray.audit.verify import verify
from s3t_ray.cli.serve_command import check_port
from s3t_ray.errors import ClusterError
from s3t_ray.proof.handed_out import check_proofs
from s3t_ray.proof.run_log import verify_certificate
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from tests.cluster.http import Client
from tests.cluster.node_metrics import scrape
from tests.cluster.raylets import Laptop, Raylets, free_port, wait_for
from tests.fakes import write_records
from tests.tiny import tiny_llama

ASK, ERASE = "model-token-0123456789", "erase-token-0123456789"
CHAT = {"model": "jobs", "messages": [{"role": "user", "content": "say r1"}], "max_tokens": 12, "temperature": 0}


@dataclass(frozen=True)
class Trained:
    """The run, and what its training job said."""

    run: Run
    log: str


@pytest.fixture(scope="module")
def cluster() -> Iterator[Raylets]:
    environment = {
        "DS_ACCELERATOR": "cpu",  # the GPUs are logical
        "OMP_NUM_THREADS": "1",
        "S3T_SERVE_TOKEN": ASK,
        "S3T_DELETE_TOKEN": ERASE,
    }
    with Raylets(environment) as raylets:
        raylets.start(4)
        yield raylets


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    tiny_llama(folder / "base", layers=4, hidden=32)
    write_records(folder / "data.jsonl", [(f"r{number}", f"p{number % 9}") for number in range(48)])
    document = {
        "name": "jobs",
        "shards": 2,
        "slices": 2,
        "budget": 2,
        "model": {"path": str(folder / "base")},
        "data": {
            "path": str(folder / "data.jsonl"),
            "subject_field": "subject",
            "partition_by": "subject",
            "partition_key": "seed",
        },
        "lora": {"layers_per_group": 2, "rank": 4},
        "optimizer": {"epochs": 3, "lr": 0.01, "batch_records": 4},
        "workers": {"groups": "auto", "gpus_per_rank": 1},
        "storage": {"uri": str(folder / "run")},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def job_id(output: str) -> str:
    found = re.search(r"raysubmit_\w+", output)
    assert found, output
    return found[0]


@pytest.fixture(scope="module")
def laptop(cluster: Raylets, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    shared = config.parent
    places = {"s3://bucket/run": str(shared / "run"), "/shared": str(shared)}
    return Laptop(cluster, tmp_path_factory.mktemp("laptop"), config, places)


@pytest.fixture(scope="module")
def trained(cluster: Raylets, config: Path, laptop: Laptop) -> Iterator[Trained]:
    """The run, trained by a submitted job; a node with a worker group is killed in the middle of it."""
    root = config.parent / "run"
    job = job_id(laptop.submit("train.py", wait=False).stdout)

    def published() -> int:
        assert cluster.status(job) != "FAILED", cluster.job("logs", job)
        return len(list(root.glob("stages/*/manifest.json")))

    wait_for("a published stage", published)

    def victim() -> subprocess.Popen[bytes] | None:
        """A node that trains and does not schedule."""
        nodes = (node for node in cluster.processes[1:] if not cluster.actors("SchedulerActor", node))
        return next((node for node in nodes if cluster.actors("Rank", node)), None)

    cluster.kill(wait_for("a node that trains", victim))
    wait_for("the end of the training job", lambda: published() and cluster.status(job) == "SUCCEEDED")
    with Run.open(root) as run:
        yield Trained(run, cluster.job("logs", job))


def test_without_its_token_the_cluster_refuses_jobs(cluster: Raylets) -> None:
    for token in ("", "0" * 64):
        refused = cluster.submit("-c", "print('let in')", token=token)
        assert refused.returncode != 0
        assert "let in" not in refused.stdout
        assert "authentication" in (refused.stdout + refused.stderr).lower()


def test_a_training_job_outlives_the_loss_of_a_node(trained: Trained) -> None:
    state = status(trained.run)
    assert state.settled
    assert [shard.depths for shard in state.shards] == [(2, 2), (2, 2)]
    assert verify(trained.run).problems == ()
    assert "settled" in trained.log


def test_a_sweep_trains_two_runs_side_by_side(laptop: Laptop, config: Path) -> None:
    done = laptop.submit("sweep.py", "--set", "budget=1", "--deletions", "2")
    assert "2 of 2 runs in parallel" in done.stdout and "use lora.rank" in done.stdout
    assert (config.parent / "sweep" / "sweep.png").is_file()
    written = json.loads((config.parent / "sweep" / "sweep.json").read_text())
    assert written["failures"] == {}
    small, large = (outcome["measured"] for outcome in written["outcomes"])
    assert small["trained_stages"] == large["trained_stages"] == 4
    assert max(small["began"], large["began"]) < min(small["ended"], large["ended"]), "one followed the other"


def test_a_forecast_and_the_deletion_benchmark_are_jobs_too(cluster: Raylets, config: Path, tmp_path: Path) -> None:
    sweep = ["--vary", "budget=[1, 2]", "--forecast-only", "--deletions", "2", "--folder", str(tmp_path / "sweep")]
    done = cluster.submit("sweep.py", str(config), *sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "budget 1" in done.stdout and "use budget" in done.stdout
    sizes = ["--shards", "2", "--singles", "3", "--batch", "200", "--batches", "1", "--live-shards", "0"]
    done = cluster.submit("jobs/deletion_benchmark.py", *sizes, "--folder", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    written = tmp_path / "deletion_throughput.json"
    assert f"written to {written}" in done.stdout
    (measured,) = json.loads(written.read_text())["acknowledged"]
    assert measured["shards"] == 2 and measured["single_over_floor"] > 1 and measured["batch_of_insert_rate"] > 0


def test_a_failed_job_says_its_exit_code_though_submit_ends_with_1(cluster: Raylets) -> None:
    failed = cluster.submit("train.py", "missing.yaml")
    assert failed.returncode == 1
    assert "exit code 2 (ConfigError, usage)" in failed.stdout
    assert "exit code 2" in cluster.status_message(job_id(failed.stdout))
    for places, said in (((), "deleted after the job"), (("--folder", "/nowhere"), "/nowhere is not a folder")):
        failed = cluster.submit("jobs/deletion_benchmark.py", *places)
        assert failed.returncode == 1
        assert said in failed.stdout and "Traceback" not in failed.stdout


@pytest.fixture(scope="module")
def services(cluster: Raylets, laptop: Laptop, trained: Trained) -> Iterator[Callable[[], tuple[int, str]]]:
    """Returns the port and job id of a running service; starts one if necessary."""
    found: list[tuple[int, str]] = []

    def running() -> tuple[int, str]:
        if not found or cluster.status(found[-1][1]) != "RUNNING":
            found.append(start_service(cluster, laptop))
        return found[-1]

    yield running


@pytest.fixture
def service(services: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """Port of the service, run by a job, and the job's id."""
    return services()


def start_service(cluster: Raylets, laptop: Laptop) -> tuple[int, str]:
    port = free_port()
    options = ["--port", str(port), "--replicas", "2", "--gpus", "0"]
    job = job_id(laptop.submit("serve.py", *options, wait=False).stdout)

    def up() -> bool:
        assert cluster.status(job) != "FAILED", cluster.job("logs", job)
        try:
            return {Client(port, ASK).ask("GET", path).status for path in ("/healthz", "/v1/models")} == {200}
        except OSError:
            return False

    wait_for("the service", up)
    return port, job


def test_the_service_answers_callers_with_the_token(service: tuple[int, str]) -> None:
    port, _ = service
    client = Client(port, ASK)
    assert Client(port, None).ask("GET", "/v1/models").status == 401
    assert Client(port, ERASE).ask("GET", "/v1/models").status == 403
    assert client.ask("GET", "/v1/models").json()["data"][0]["id"] == "jobs"
    answer = client.ask("POST", "/v1/chat/completions", **CHAT)
    assert answer.status == 200 and answer.headers["x-s3t-depths"] == "2,2"
    assert answer.json()["usage"]["completion_tokens"] > 0
    streamed = client.ask("POST", "/v1/chat/completions", **CHAT, stream=True)
    told = "".join(event["choices"][0]["delta"].get("content", "") for event in streamed.events())
    assert told == answer.json()["choices"][0]["message"]["content"]
    long = {**CHAT, "messages": [{"role": "user", "content": "word " * 3000}]}
    for stream in (False, True):
        refused = client.ask("POST", "/v1/chat/completions", **long, stream=stream)
        assert refused.status == 400 and "shorten" in refused.json()["error"]["message"]


def test_the_page_of_the_service_asks_a_copy_of_the_model(service: tuple[int, str], trained: Trained) -> None:
    port, _ = service
    page = Client(port, None).ask("GET", "/")
    assert page.status == 200 and "<title>s3t_ray" in page.text
    assert Client(port, None).ask("GET", "/ui/status").status == 401
    assert Client(port, ASK).ask("GET", "/ui/status").json()["name"] == trained.run.row.name
    answered = Client(port, ASK).ask("POST", "/ui/ask", prompt="Say something.")
    assert answered.status == 200, answered.text
    assert answered.json()["depths"] == [2, 2] and answered.json()["base"] != answered.json()["live"]


def test_a_lost_copy_of_the_model_is_replaced(cluster: Raylets, service: tuple[int, str]) -> None:
    client = Client(service[0], ASK)
    before = wait_for("both copies", lambda: pair if len(pair := cluster.actors("Following")) == 2 else None)
    os.kill(before[0], signal.SIGKILL)
    wait_for("the new copy", lambda: len(set(cluster.actors("Following")) - set(before)) == 1)
    wait_for(
        "its service", lambda: all(client.ask("POST", "/v1/chat/completions", **CHAT).status == 200 for _ in range(4))
    )


def test_a_deletion_over_http_from_receipt_to_certificate(
    cluster: Raylets, service: tuple[int, str], trained: Trained
) -> None:
    """The scheduler is killed just before; the next one finds the copies of the model and continues."""
    port, _ = service
    model, deletions = Client(port, ASK), Client(port, ERASE)
    (scheduler,) = wait_for("the scheduler", lambda: cluster.actors("SchedulerActor"))
    os.kill(scheduler, signal.SIGKILL)
    assert model.ask("POST", "/v1/deletions", subjects=["p4"]).status == 403
    before = int(model.ask("POST", "/v1/chat/completions", **CHAT).headers["x-s3t-version"])
    accepted = deletions.ask("POST", "/v1/deletions", subjects=["p4"])
    assert accepted.status == 202 and accepted.json()["records"] == 5
    depths = [0, 0]
    for shard in status(trained.run).shards:
        depths[shard.shard] = shard.depth
    assert min(depths) < 2
    for _ in range(4):  # each replica answers some
        answer = model.ask("POST", "/v1/chat/completions", **CHAT)
        assert int(answer.headers["x-s3t-version"]) > before, "answered by what saw the records"
    again = deletions.ask("POST", "/v1/deletions", subjects=["p4"])
    assert again.json()["repeated"] and again.json()["request_id"] == accepted.json()["request_id"]
    where = accepted.headers["location"]
    wait_for("restoration", lambda: deletions.ask("GET", where).json()["state"] == "restored")
    certificate = verify_certificate(deletions.ask("GET", f"{where}/certificate").text, trained.run.keys.public_key_pem)
    assert certificate.facts.records == 5
    proof = wait_for(
        "the published log", lambda: (told := deletions.ask("GET", f"{where}/proof")).status == 200 and told
    )
    assert check_proofs([proof.text], [certificate])[0].entry == certificate.facts.sequence
    wait_for("the healed model", lambda: answered_depths(model) == {"2,2"})
    assert model.ask("GET", "/healthz").json()["depths"] == [2, 2]


def answered_depths(client: Client) -> set[str]:
    """Of several answers, so that each copy of the model gives some."""
    return {client.ask("POST", "/v1/chat/completions", **CHAT).headers["x-s3t-depths"] for _ in range(4)}


def test_health_and_receipts_do_not_wait_for_the_model(service: tuple[int, str], trained: Trained) -> None:
    """While the model has more requests than it can hold, and endless bodies are pending."""
    port, _ = service
    stuck = []
    for _ in range(100):
        half = socket.create_connection(("127.0.0.1", port))
        half.sendall(
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ASK}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{".encode()
        )
        stuck.append(half)
    try:
        assert Client(port, ERASE).ask("GET", "/healthz").status == 200
        assert Client(port, ERASE).ask("POST", "/v1/deletions", subjects=["p8"], run="another").status == 409
        accepted = Client(port, ERASE).ask("POST", "/v1/deletions", subjects=["p8"])
        assert accepted.status == 202 and accepted.json()["run"] == trained.run.row.name
        assert Client(port, ASK).ask("POST", "/v1/chat/completions", **CHAT).status == 200
    finally:
        for half in stuck:
            half.close()


def test_a_port_in_use_is_refused(service: tuple[int, str]) -> None:
    with pytest.raises(ClusterError, match=f"cannot listen on 127.0.0.1:{service[0]}"):
        check_port("127.0.0.1", service[0])
    check_port("127.0.0.1", free_port())


def test_prometheus_sees_the_run(cluster: Raylets, service: tuple[int, str], trained: Trained) -> None:
    deletions = Client(service[0], ERASE)
    where = deletions.ask("POST", "/v1/deletions", subjects=["p7"]).headers["location"]
    wait_for("restoration", lambda: deletions.ask("GET", where).json()["state"] == "restored")
    count = len(trained.run.ledger.deletions())

    def restored() -> dict[str, float] | None:
        seen = scrape(cluster)
        at_rest = seen.get("ray_s3t_worker_groups_busy_share") == 0  # nodes report at different moments
        return seen if at_rest and seen.get("ray_s3t_deletions{restored}") == count else None

    seen = wait_for("the deletion in the metrics", restored)
    assert seen["ray_s3t_oldest_unfinished_deletion_seconds"] == 0
    assert (seen["ray_s3t_shard_depth{0}"], seen["ray_s3t_shard_depth{1}"]) == (2, 2)
    assert seen["ray_s3t_shard_depth_most"] == 2 and seen["ray_s3t_stages_queued"] == 0
    assert 0 <= seen["ray_s3t_worker_groups"] <= 4 and seen["ray_s3t_stages_trained_total"] >= 1


def test_a_deletion_job_continues_with_the_services_scheduler(
    laptop: Laptop, config: Path, service: tuple[int, str], trained: Trained
) -> None:
    (config.parent / "expired.txt").write_text("r1\nr2\n")
    done = laptop.submit("delete.py")
    assert "accepted" in done.stdout and "restored" in done.stdout
    assert status(trained.run).settled
    assert verify(trained.run).problems == ()


def test_a_stopped_job_says_what_that_means(cluster: Raylets, service: tuple[int, str]) -> None:
    _, job = service
    cluster.job("stop", job)
    assert cluster.status(job) == "STOPPED"
    assert "stopped; nothing published is lost" in cluster.job("logs", job)
