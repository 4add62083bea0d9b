"""Ask the model and delete a person over HTTP, with OpenAI's client and plain JSON.

    export S3T_SERVE_TOKEN=... S3T_DELETE_TOKEN=...
    python examples/ask_over_http.py http://HOST:8000 --delete ann@example.org

The fingerprint of an answer is a hash of the stages that produced it. After the receipt, no answer has a fingerprint of
stages that saw the person's records.
"""

from __future__ import annotations

import argparse
import json
import os
from urllib.request import Request, urlopen

from openai import OpenAI


def ask(url: str, token: str, question: str) -> tuple[str, str]:
    """The answer, and the fingerprint of the stages that produced it."""
    client = OpenAI(base_url=f"{url}/v1", api_key=token)
    model = next(iter(client.models.list())).id
    said = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    return said.choices[0].message.content or "", said.system_fingerprint or ""


def delete(url: str, token: str, subject: str) -> str:
    """Request a deletion. Returns its request id, for /v1/deletions/ID."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    asked = Request(f"{url}/v1/deletions", json.dumps({"subjects": [subject]}).encode(), headers)
    with urlopen(asked, timeout=30) as answer:
        return str(json.load(answer)["request_id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--ask", default="Say hello.")
    parser.add_argument("--delete", metavar="SUBJECT")
    asked = parser.parse_args()
    text, fingerprint = ask(asked.url, os.environ["S3T_SERVE_TOKEN"], asked.ask)
    print(f"{fingerprint}: {text}")
    if asked.delete:
        print(f"accepted: {delete(asked.url, os.environ['S3T_DELETE_TOKEN'], asked.delete)}")
        text, fingerprint = ask(asked.url, os.environ["S3T_SERVE_TOKEN"], asked.ask)
        print(f"{fingerprint}: {text}")


if __name__ == "__main__":
    main()
