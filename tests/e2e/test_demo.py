"""The complete demo with a tiny base model, and every command that it recommends at the end."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from tests.command import s3t
from tests.tiny import tiny_llama


def test_every_command_that_the_demo_prints_works(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "demo-model", layers=30, hidden=16)  # the layers of the model that it is told with
    story = s3t("demo", "--folder", "demo-run", cwd=tmp_path)
    assert "Restored. Certificate (entry 4 of the log), signed" in story and story.count("every byte equal") == 2

    lines = [line.strip().removeprefix("$ ") for line in story.splitlines() if line.strip().startswith("$ s3t ")]
    printed = {shlex.split(line)[1]: shlex.split(line)[1:] for line in lines}
    assert printed.keys() == {"status", "eval", "generate", "verify", "delete"}
    for arguments in printed.values():
        s3t(*arguments, cwd=tmp_path)
    assert json.loads(s3t(*printed["verify"], "--json", cwd=tmp_path))["result"] == "verified"
    assert json.loads(s3t(*printed["delete"], "--json", cwd=tmp_path))["records"] > 0

    assert sorted(path.name for path in (tmp_path / "demo-run.pictures").iterdir()) == ["depths.png", "losses.png"]
    assert json.loads(s3t("audit", "demo-run", "--json", cwd=tmp_path))["problems"] == []
