"""Where the deletion benchmark writes its result: checked before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchlib.deletion import main

from s3t_ray.errors import ConfigError


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--folder {tmp_path}/shared is not a folder"):
        main(["--folder", str(tmp_path / "shared")])
    with pytest.raises(ConfigError, match="there is no folder"):
        main(["--out", str(tmp_path / "none" / "a.json")])


def test_a_result_that_would_be_gone_with_the_job_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "working_dir_files" / "_ray_pkg_0"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    for arguments in ([], ["--out", "result.json"], ["--folder", "."]):
        with pytest.raises(ConfigError, match="deleted after the job"):
            main(arguments)
