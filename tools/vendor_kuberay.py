"""Extract the schemas of KubeRay's resources from KubeRay's source. The tests validate our manifests against them.

    git clone --branch v1.7.0 https://github.com/ray-project/kuberay
    python tools/vendor_kuberay.py kuberay v1.7.0 > tests/schemas/kuberay.json

Extracts the v1 schemas of RayCluster, RayJob and RayService, without descriptions. Repeated parts are written only
once, and unknown fields are refused, as `kubectl apply --validate=strict` does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import yaml

KINDS = ("rayclusters", "rayjobs", "rayservices")
WORTH_A_NAME = 400  # characters


def main(checkout: str, tag: str) -> None:
    resources = {}
    for name in KINDS:
        path = f"{tag}:ray-operator/config/crd/bases/ray.io_{name}.yaml"
        shown = subprocess.run(["git", "-C", checkout, "show", path], capture_output=True, check=True)
        definition = yaml.safe_load(shown.stdout)["spec"]
        (version,) = (version for version in definition["versions"] if version["name"] == "v1")
        resources[definition["names"]["kind"]] = strict(version["schema"]["openAPIV3Schema"])
    for resource in resources.values():
        del resource["properties"]["status"]  # the operator's, not the user's
    counts: Counter[str] = Counter()
    for resource in resources.values():
        count(resource, counts)
    names = {text: f"part{number}" for number, text in enumerate(sorted(t for t, n in counts.items() if n > 1))}
    parts = {
        name: {key: shared(value, names) for key, value in json.loads(text).items()} for text, name in names.items()
    }
    document = {
        "source": f"https://github.com/ray-project/kuberay, ray-operator/config/crd/bases at {tag}",
        "license": "Apache-2.0. Copyright the KubeRay Authors. Changed: see tools/vendor_kuberay.py.",
        "version": tag,
        "$defs": parts,
        "kinds": {kind: shared(resource, names) for kind, resource in resources.items()},
    }
    json.dump(document, sys.stdout, indent=None, separators=(",", ":"), sort_keys=True)
    sys.stdout.write("\n")


def strict(schema: Any) -> Any:
    """Without descriptions, and closed where Kubernetes does not keep unknown fields."""
    found = {key: value for key, value in schema.items() if key != "description"}
    if "properties" in found:
        found["properties"] = {name: strict(value) for name, value in found["properties"].items()}
        if not found.get("x-kubernetes-preserve-unknown-fields"):
            found.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = strict(found[key])
    return found


def count(schema: Any, counts: Counter[str]) -> None:
    """How often each large part stands."""
    text = json.dumps(schema, sort_keys=True)
    if len(text) >= WORTH_A_NAME:
        counts[text] += 1
    for part in children(schema):
        count(part, counts)


def children(schema: Any) -> list[Any]:
    found = list(schema.get("properties", {}).values())
    return found + [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]


def shared(schema: Any, names: dict[str, str]) -> Any:
    """With references in place of the parts that have a name."""
    if isinstance(schema, dict):
        name = names.get(json.dumps(schema, sort_keys=True))
        return {"$ref": f"#/$defs/{name}"} if name else {key: shared(value, names) for key, value in schema.items()}
    return [shared(value, names) for value in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    main(*sys.argv[1:])
