"""An external server follows the live adapters, and deletions wait for it.

vLLM does not run here. Its run-time interface is held by a server of this test's own, which checks each call against
what vLLM documents and reads the adapter from its folder when it is loaded.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from s3t_ray.errors import ClusterError, ConfigError, StoreError
from s3t_ray.ledger.values import DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.shard_view import view_shard
from s3t_ray.run.status import status
from s3t_ray.serve.follow.adapter_folder import LIVE_FILE, AdapterFolder
from s3t_ray.serve.follow.follower import Follower
from s3t_ray.serve.follow.vllm_server import VllmServer
from tests.fakes import Cluster, small_config, write_records
from tests.fakes.serving import LoraWorkers
from tests.tiny import tiny_llama


@dataclass
class InPlaceOfVllm:
    """The three calls of vLLM's interface, as it documents them; anything else is an error of ours."""

    key: str | None = None
    adapters: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    refuses: bool = False
    port: int = 0
    known: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: Any, authorization: str | None) -> tuple[int, Any]:
        if self.key is not None and authorization != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        if self.refuses:
            return 500, {"error": "busy"}
        if (method, path) == ("GET", "/v1/models"):
            told = [{"id": "base", "object": "model", "parent": None}]
            return 200, {"object": "list", "data": told + [{"id": n, "parent": "base"} for n in self.adapters]}
        name = str(body.get("lora_name")) if isinstance(body, dict) else ""
        self.calls.append(f"{path.removeprefix('/v1/')} {name}")
        if (method, path) == ("POST", "/v1/load_lora_adapter") and set(body) == {"lora_name", "lora_path"}:
            if name in self.adapters:
                return 400, {"error": f"{name} has already been loaded"}
            folder = Path(body["lora_path"])
            settings = json.loads((folder / "adapter_config.json").read_text())
            if not load_file(folder / "adapter_model.safetensors") or settings.get("use_rslora"):
                self.wrong.append(f"{folder} is no adapter that vLLM reads")
            self.adapters[name] = str(folder)
            return 200, f"Success: LoRA adapter '{name}' added successfully."
        if (method, path) == ("POST", "/v1/unload_lora_adapter") and set(body) == {"lora_name"}:
            if self.adapters.pop(name, None) is None:
                return 404, {"error": f"{name} cannot be found"}
            return 200, f"Success: LoRA adapter '{name}' removed successfully."
        self.wrong.append(f"{method} {path} {body}")
        return 404, {}


@pytest.fixture
def vllm() -> Iterator[InPlaceOfVllm]:
    made = InPlaceOfVllm()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply("GET")

        def do_POST(self) -> None:
            self.reply("POST")

        def reply(self, method: str) -> None:
            length = int(self.headers.get("content-length", "0"))
            body = json.loads(self.rfile.read(length)) if length else None
            told, document = made.answer(method, self.path, body, self.headers.get("authorization"))
            data = json.dumps(document).encode()
            self.send_response(told)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()
    assert made.wrong == []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    base = tiny_llama(tmp_path / "base", layers=6, hidden=32)
    write_records(tmp_path / "data.jsonl", [(f"r{number}", f"p{number % 5}") for number in range(20)])
    made = Cluster(
        small_config(tmp_path, model={"path": str(base)}), workers=lambda run: LoraWorkers(run.store, 6, 32, 2, 4)
    )
    made.settle()
    yield made
    made.run.close()


def follower_of(cluster: Cluster, vllm: InPlaceOfVllm, tmp_path: Path) -> Follower:
    return Follower(cluster.run, "vllm", VllmServer(f"http://127.0.0.1:{vllm.port}", vllm.key), tmp_path / "adapters")


def stages_in(cluster: Cluster, vllm: InPlaceOfVllm) -> set[str]:
    """Stages whose weights the server holds in memory, by the exports that the ledger knows or knew."""
    vllm.known |= {export.folder: export.stages for export in cluster.run.ledger.exports.all()}
    return {stage for folder in vllm.adapters.values() for stage in vllm.known[folder]}


def live(cluster: Cluster) -> set[str]:
    shards = range(cluster.run.row.shards)
    return {stage for shard in shards for stage in view_shard(cluster.run, shard).serving}


def rounds(cluster: Cluster) -> None:
    """As many as a deletion takes, where nothing holds it up."""
    for _ in range(20):
        cluster.now += 1.0
        cluster.scheduler.tick(0)


def state_of(cluster: Cluster) -> DeletionState:
    return cluster.run.ledger.deletions()[-1].state


def test_a_deletion_waits_until_the_server_has_let_go_of_what_it_struck(
    cluster: Cluster, vllm: InPlaceOfVllm, tmp_path: Path
) -> None:
    follower = follower_of(cluster, vllm, tmp_path)
    assert len(follower.look()) == 2 == len(vllm.adapters)
    assert stages_in(cluster, vllm) == live(cluster)
    receipt = deletion.accept(cluster.run, [], ["p4"])
    struck = set(receipt.stages_pruned)
    rounds(cluster)
    assert state_of(cluster) is DeletionState.ACCEPTED and struck & stages_in(cluster, vllm)
    (failure,) = status(cluster.run).failures
    assert failure.kind == "follower" and "1 deletions wait for vllm" in failure.error
    vllm.refuses = True
    with pytest.raises(ClusterError, match="answered 500"):
        follower.look()
    rounds(cluster)
    assert state_of(cluster) is DeletionState.ACCEPTED, "it has not let go"
    vllm.refuses = False
    follower.look()
    assert not struck & stages_in(cluster, vllm)
    cluster.settle()
    assert state_of(cluster) is DeletionState.RESTORED
    follower.look()
    assert stages_in(cluster, vllm) == live(cluster)
    left = {path.name for path in (tmp_path / "adapters").iterdir()}
    assert left == set(vllm.adapters), "what was struck is erased"
    assert status(cluster.run).failures == ()


def test_either_side_may_be_killed_and_started_again(cluster: Cluster, vllm: InPlaceOfVllm, tmp_path: Path) -> None:
    follower_of(cluster, vllm, tmp_path).look()
    names = set(vllm.adapters)
    vllm.adapters.clear()  # the server was started again
    assert set(follower_of(cluster, vllm, tmp_path).look()) == names == set(vllm.adapters)
    vllm.calls.clear()
    follower_of(cluster, vllm, tmp_path).look()  # the follower was
    assert vllm.calls == [], "what is loaded is not loaded again"
    deletion.accept(cluster.run, [], ["p4"])  # while none runs
    rounds(cluster)
    assert state_of(cluster) is DeletionState.ACCEPTED
    follower_of(cluster, vllm, tmp_path).look()
    cluster.settle()
    assert state_of(cluster) is DeletionState.RESTORED


def test_one_that_was_cut_off_in_an_export_begins_it_anew(
    cluster: Cluster, vllm: InPlaceOfVllm, tmp_path: Path
) -> None:
    follower_of(cluster, vllm, tmp_path).look()
    for folder in vllm.adapters.values():
        Path(folder, "adapter_model.safetensors").write_bytes(b"half")
    vllm.adapters.clear()
    follower_of(cluster, vllm, tmp_path).look()
    assert stages_in(cluster, vllm) == live(cluster)


def test_a_follower_that_is_stopped_leaves_nothing_and_holds_nothing_up(
    cluster: Cluster, vllm: InPlaceOfVllm, tmp_path: Path
) -> None:
    vllm.adapters["of-somebody-else"] = "/elsewhere"
    follower = follower_of(cluster, vllm, tmp_path)
    follower.look()
    follower.close()
    assert list(vllm.adapters) == ["of-somebody-else"]
    assert cluster.run.ledger.exports.all() == () == cluster.run.ledger.followers.all()
    deletion.accept(cluster.run, ["r3"], [])
    cluster.settle()
    assert state_of(cluster) is DeletionState.RESTORED


def test_a_server_without_the_key_is_not_told_to_be_followed(
    cluster: Cluster, vllm: InPlaceOfVllm, tmp_path: Path
) -> None:
    vllm.key = "secret"
    with pytest.raises(ClusterError, match="answered 401"):
        Follower(cluster.run, "v", VllmServer(f"http://127.0.0.1:{vllm.port}", "other"), tmp_path / "a").look()
    assert len(follower_of(cluster, vllm, tmp_path).look()) == 2
    with pytest.raises(ClusterError, match="cannot be reached"):
        VllmServer("http://127.0.0.1:9").loaded()
    with pytest.raises(ConfigError, match="is not the address"):
        VllmServer("127.0.0.1:8000")


def test_a_folder_is_followed_by_its_list(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "adapters"
    follower = Follower(cluster.run, "folder", AdapterFolder(folder), folder)
    names = follower.look()
    listed = json.loads((folder / LIVE_FILE).read_text())["adapters"]
    assert listed == list(names) and all(load_file(folder / name / "adapter_model.safetensors") for name in listed)
    deletion.accept(cluster.run, [], ["p4"])
    after = set(follower.look())
    assert not after & set(names) or after < set(names)
    follower.close()
    assert [path.name for path in folder.iterdir()] == [LIVE_FILE]
    (folder / LIVE_FILE).write_text("[")
    with pytest.raises(StoreError, match="written again"):
        AdapterFolder(folder).loaded()
