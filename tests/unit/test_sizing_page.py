"""docs/sizing.md holds the tables that its script computes from the plan of today."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "sizing.md"


def test_the_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("sizing", PAGE.with_suffix(".py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sizing"] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        assert module.page() == PAGE.read_text(), "run: python docs/sizing.py"
    finally:
        del sys.modules["sizing"]
