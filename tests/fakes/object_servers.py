"""Local servers with the parts of S3, Google Cloud Storage and the Hugging Face hub that reading a file needs.

In: objects by their names. Out: an HTTP server on this machine, and what it was asked. The clients are the real ones.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

Objects = Mapping[str, bytes]
_WHEN = "Mon, 01 Jan 2024 00:00:00 GMT"


@contextmanager
def served(kind: type[_Server], objects: Objects, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """`host:port` of a running server of `kind`."""
    handler = type("Handler", (kind,), {"objects": dict(objects)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        if tls is not None:
            running.socket = tls.wrap_socket(running.socket, server_side=True)
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


class _Server(http.server.BaseHTTPRequestHandler):
    objects: dict[str, bytes]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.answer(unquote(url.path).lstrip("/"), {name: each[0] for name, each in parse_qs(url.query).items()})

    def answer(self, path: str, query: Mapping[str, str]) -> None:
        raise NotImplementedError

    def send(self, body: bytes, status: int = 200, **headers: str) -> None:
        start, end = 0, len(body)
        wanted = self.headers.get("Range", "")
        if status == 200 and wanted.startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first or 0), min(len(body), int(last) + 1 if last else len(body))
            status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{len(body)}"
        self.send_response(status)
        for name, value in {"Last-Modified": _WHEN, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[start:end])

    def send_json(self, value: Any, status: int = 200) -> None:
        self.send(json.dumps(value).encode(), status, Content_Type="application/json")

    def log_message(self, *_: object) -> None:
        pass


class Files(_Server):
    """A web server."""

    def answer(self, path: str, query: Mapping[str, str]) -> None:
        found = self.objects.get(path)
        self.send(b"no such file", 404) if found is None else self.send(found)


class S3(_Server):
    """Objects are named `bucket/key`."""

    def answer(self, path: str, query: Mapping[str, str]) -> None:
        bucket, _, key = path.partition("/")
        if key:
            found = self.objects.get(path)
            if found is None:
                self.send(b"" if self.command == "HEAD" else b"<Error><Code>NoSuchKey</Code></Error>", 404)
            else:
                self.send(found, ETag=f'"{hashlib.md5(found).hexdigest()}"')
            return
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        keys = sorted(name.removeprefix(f"{bucket}/") for name in self.objects if name.startswith(f"{bucket}/{prefix}"))
        inside = [key for key in keys if not delimiter or delimiter not in key[len(prefix) :]]
        folders = {prefix + key[len(prefix) :].split("/")[0] + "/" for key in keys if key not in inside}
        listed = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[f'{bucket}/{key}'])}</Size>"
            f"<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in inside
        )
        listed += "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        text = f"<ListBucketResult><KeyCount>{len(keys)}</KeyCount><IsTruncated>false</IsTruncated>{listed}"
        self.send(f"{text}</ListBucketResult>".encode(), Content_Type="application/xml")


class Gcs(_Server):
    """Objects are named `bucket/key`."""

    def answer(self, path: str, query: Mapping[str, str]) -> None:
        parts = path.removeprefix("storage/v1/").removeprefix("download/storage/v1/").split("/", 3)
        if parts[0] != "b":  # bytes are read by another API
            found = self.objects.get(path)
            self.send(b"no such object", 404) if found is None else self.send(found, x_goog_generation="1")
            return
        bucket, key = parts[1], parts[3] if len(parts) == 4 else ""
        if not key:
            prefix = query.get("prefix", "")
            names = sorted(name for name in self.objects if name.startswith(f"{bucket}/{prefix}"))
            self.send_json({"kind": "storage#objects", "items": [self._told(bucket, name) for name in names]})
        elif f"{bucket}/{key}" not in self.objects:
            self.send_json({"error": {"code": 404, "message": "no such object"}}, 404)
        elif query.get("alt") == "media":
            self.send(self.objects[f"{bucket}/{key}"], x_goog_generation="1")
        else:
            self.send_json(self._told(bucket, f"{bucket}/{key}"))

    def _told(self, bucket: str, name: str) -> dict[str, str]:
        return {
            "kind": "storage#object",
            "name": name.removeprefix(f"{bucket}/"),
            "bucket": bucket,
            "generation": "1",
            "size": str(len(self.objects[name])),
            "updated": "2024-01-01T00:00:00.000Z",
            "timeCreated": "2024-01-01T00:00:00.000Z",
        }


class Hub(_Server):
    """Objects are named `owner/name/path` and lie in datasets, at the revision main."""

    def answer(self, path: str, query: Mapping[str, str]) -> None:
        if path.startswith("datasets/"):
            owner, name, _, _, inside = path.removeprefix("datasets/").split("/", 4)
            found = self.objects.get(f"{owner}/{name}/{inside}")
            if found is None:
                self.send(b"", 404, X_Error_Code="EntryNotFound")
            else:
                self.send(found, ETag=f'"{hashlib.sha1(found).hexdigest()}"', X_Repo_Commit="0" * 40)
            return
        owner, name, *rest = path.removeprefix("api/datasets/").split("/")
        mine = {
            each.split("/", 2)[2]: data for each, data in self.objects.items() if each.startswith(f"{owner}/{name}/")
        }
        if not mine:
            self.send_json({"error": "Repository not found"}, 404)
        elif rest[:1] == ["tree"]:
            start = "".join(f"{part}/" for part in rest[2:])
            within = {each: data for each, data in sorted(mine.items()) if each.startswith(start)}
            parents = {each.rpartition("/")[0] for each in within} - {"", start.rstrip("/")}
            listed: list[dict[str, object]] = [
                {"type": "directory", "path": each, "oid": "0" * 40} for each in sorted(parents)
            ]
            listed += [
                {"type": "file", "path": each, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for each, data in within.items()
            ]
            deep = query.get("recursive") == "true"
            shown = [each for each in listed if deep or "/" not in str(each["path"]).removeprefix(start)]
            self.send_json(shown or {"error": "no such folder"}, 200 if shown else 404)
        else:
            self.send_json({"id": f"{owner}/{name}", "sha": "0" * 40, "siblings": [], "private": False, "tags": []})
