"""Keys are not created where they would be lost before the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3t_ray.config.memory_folders import check_keys_last, is_in_memory
from s3t_ray.errors import ConfigError

MOUNTS = """\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:20 / /keys rw,nosuid - tmpfs tmpfs rw,size=1024k
23 21 0:21 / /keys/disk rw - xfs /dev/vdb rw
24 21 0:22 / /a\\040b rw - tmpfs tmpfs rw
25 21 0:23 / /over rw - tmpfs tmpfs rw
26 21 254:1 / /over rw - ext4 /dev/vdc rw
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/keys", True),
        ("/keys/run/not/there/yet", True),
        ("/keys-of-another", False),
        ("/keys/disk/run", False),
        ("/a b/run", True),
        ("/over/run", False),
        ("/home/run.keys", False),
    ],
)
def test_the_nearest_mount_decides(path: str, found: bool) -> None:
    assert is_in_memory(Path(path), MOUNTS) is found


def test_a_mount_of_any_name() -> None:
    assert is_in_memory(Path("/Schlüssel x/run"), MOUNTS + "40 1 0:40 / /Schlüssel\\040x rw - tmpfs tmpfs rw\n")


def test_a_link_into_memory_is_in_memory(tmp_path: Path) -> None:
    target, link = tmp_path / "memory", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    assert is_in_memory(link / "run.keys", f"{MOUNTS}27 21 0:24 / {target} rw - tmpfs tmpfs rw\n")


def test_the_table_of_this_machine_can_be_read() -> None:
    assert is_in_memory(Path("/dev/shm"), Path("/proc/self/mountinfo").read_text())
    assert not is_in_memory(Path("/proc"), Path("/proc/self/mountinfo").read_text())


@pytest.mark.parametrize("storage", ["s3://bucket/run", "/home/run", None])
def test_keys_that_would_vanish_before_the_run_are_refused(storage: str | None) -> None:
    with pytest.raises(ConfigError, match="/keys/run, which is in memory"):
        check_keys_last(Path("/keys/run"), storage, MOUNTS)
    check_keys_last(Path("/home/run.keys"), storage, MOUNTS)


def test_a_trial_run_may_be_in_memory_as_a_whole() -> None:
    check_keys_last(Path("/keys/run.keys"), "/keys/run", MOUNTS)
