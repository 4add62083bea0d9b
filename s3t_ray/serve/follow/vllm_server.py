"""vLLM's run-time LoRA interface, as documented (docs.vllm.ai, "LoRA Adapters").

In: the address of an OpenAI-compatible server that runs with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.
Out: which adapters are loaded (GET /v1/models), loading (POST /v1/load_lora_adapter) and unloading (POST
/v1/unload_lora_adapter). The server reads the adapter's folder itself, so both must see it under the same path.
"""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from s3t_ray.errors import ClusterError, ConfigError

ASK_SECONDS = 120.0
"""Seconds per call; loading an adapter happens within the call."""
VLLM_TOKEN = "S3T_VLLM_TOKEN"
"""Environment variable with the server's key, if it has one (`--api-key`)."""


class VllmServer:
    """See `follower.Target`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is not the address of a server", "give it as http://host:8000")
        self._parts = parts
        self._headers = {"content-type": "application/json"} | (
            {} if token is None else {"authorization": f"Bearer {token}"}
        )

    def loaded(self) -> frozenset[str]:
        status, text = self._ask("GET", "/v1/models", None)
        if status != 200:
            raise self._refused("list its models", status)
        try:
            return frozenset(str(model["id"]) for model in json.loads(text)["data"])
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError(
                f"{self._parts.netloc} does not list its models as in OpenAI's API", "check the address"
            ) from error

    def load(self, name: str, folder: Path) -> None:
        status, _ = self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        if status != 200:
            raise self._refused(f"load {name}", status)

    def unload(self, name: str) -> None:
        """Unload an adapter; a missing one is not an error."""
        status, _ = self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        if status not in (200, 404):
            raise self._refused(f"unload {name}", status)

    def _ask(self, method: str, path: str, body: Any) -> tuple[int, str]:
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        connection = kind(str(self._parts.hostname), self._parts.port, timeout=ASK_SECONDS)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, self._parts.path.rstrip("/") + path, sent, self._headers)
            answer = connection.getresponse()
            return answer.status, answer.read(1 << 22).decode(errors="replace")
        except (OSError, HTTPException) as error:
            raise ClusterError(
                f"{self._parts.netloc} cannot be reached: {type(error).__name__}", "start it, or check the address"
            ) from error
        finally:
            connection.close()

    def _refused(self, what: str, status: int) -> ClusterError:
        return ClusterError(
            f"{self._parts.netloc} did not {what}: it answered {status}",
            "run it with --enable-lora, --max-lora-rank of the run's rank or more, and "
            f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True; its key goes into {VLLM_TOKEN}",
        )
