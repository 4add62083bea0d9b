"""Check the signature of a certificate or receipt without s3t_ray: what an outsider's own code would do.

    python examples/check_a_certificate.py certificate.json public.pem

The signature (Ed25519) is over the format's name, a line break, and the document without its signature as JSON with
sorted keys and no spaces. Compare the key with one that you got from the operator earlier: a document contains its
own key, which proves nothing about who owns it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key


def check(document: str, public_pem: bytes) -> bool:
    """Whether the owner of this public key signed exactly this document."""
    entry = json.loads(document)
    signature = bytes.fromhex(entry.pop("signature"))
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    key = load_pem_public_key(public_pem)
    assert isinstance(key, Ed25519PublicKey), "the key is not an Ed25519 key"
    try:
        key.verify(signature, f"{entry['format']}\n{text}".encode())
    except InvalidSignature:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("document", type=Path)
    parser.add_argument("public_key", type=Path)
    asked = parser.parse_args()
    if not check(asked.document.read_text(), asked.public_key.read_bytes()):
        raise SystemExit("NOT signed by this key, or changed since")
    print("signed by this key, and unchanged since")


if __name__ == "__main__":
    main()
