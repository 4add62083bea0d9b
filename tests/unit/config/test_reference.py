"""docs/config.md matches the schema, and the package stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from s3t_ray.config.fields import fields
from s3t_ray.config.reference import reference_markdown

ROOT = Path(__file__).parents[3]


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    assert page == reference_markdown(), "run: python -m s3t_ray.config.reference > docs/config.md"


def test_the_page_tells_every_field() -> None:
    page = reference_markdown()
    assert [field.path for field in fields() if f"| `{field.name}` |" not in page] == []


def test_config_and_data_import_neither_torch_nor_ray_nor_transformers() -> None:
    rooms = [*(ROOT / "s3t_ray/config").glob("*.py"), *(ROOT / "s3t_ray/data").glob("*.py")]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in rooms if path.stem != "__init__"]
    assert len(modules) > 15
    script = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "heavy = ('torch', 'ray', 'transformers', 'datasets', 'huggingface_hub')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
