"""A local receiver of callbacks that refuses some once, and checks every signature.

In: a secret. Out: the accepted states, by request, in order. It first answers every tenth message with 500.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

STATES = ("accepted", "pruned", "purged", "restored")
REFUSED_EVERY = 10


class OfficeReceiver:
    """A context manager: it listens inside the block."""

    def __init__(self) -> None:
        self.taken: dict[str, list[str]] = {}
        self.refused = 0
        self.unsigned = 0
        self._key = secrets.token_bytes(32)
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(receiver._status(dict(self.headers.items()), body))
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> OfficeReceiver:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def write_settings(self, file: Path) -> Path:
        """The file that S3T_CALLBACKS_FILE names."""
        told = {
            "name": "office",
            "url": f"http://127.0.0.1:{self._server.server_address[1]}/deletions",
            "secrets": [base64.b64encode(self._key).decode()],
            "private": True,
        }
        file.write_text(json.dumps({"receivers": [told]}))
        return file

    def whole(self) -> int:
        """Number of deletions for which every state arrived, in order."""
        with self._lock:
            return sum(tuple(dict.fromkeys(states)) == STATES for states in self.taken.values())

    def _status(self, headers: dict[str, str], body: bytes) -> int:
        told = {name.lower(): value for name, value in headers.items()}
        said = f"{told['webhook-id']}.{told['webhook-timestamp']}.".encode() + body
        wanted = "v1," + base64.b64encode(hmac.new(self._key, said, hashlib.sha256).digest()).decode()
        with self._lock:
            if wanted not in told["webhook-signature"].split(" "):
                self.unsigned += 1
                return 403
            first = told["webhook-id"] not in self._seen
            self._seen.add(told["webhook-id"])
            if first and len(self._seen) % REFUSED_EVERY == 0:
                self.refused += 1
                return 500
            data = json.loads(body)["data"]
            self.taken.setdefault(data["request_id"], []).append(data["state"])
            return 204
