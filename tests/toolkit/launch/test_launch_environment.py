"""What a process of a cluster job makes of its environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit.launch.environment import claim_local_disk


def told(place: Path) -> dict[str, str]:
    names = {"AITK_STAGE": "caches", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
    return {
        "AITK_LAUNCHED": "slurm",
        "AITK_LOCAL": str(place),
        **{key: f"{place}/{name}" for key, name in names.items()},
    }


def test_the_local_disk_of_a_job_is_its_own(tmp_path: Path) -> None:
    env = told(tmp_path / "aitk-7")
    for _ in range(2):  # the processes of a machine one after another
        claim_local_disk(env)
    assert env == told(tmp_path / "aitk-7") and (tmp_path / "aitk-7").stat().st_mode & 0o777 == 0o700
    # a process that no cluster has started makes nothing
    claim_local_disk({**told(tmp_path / "aitk-8"), "AITK_LAUNCHED": "local"})
    assert not (tmp_path / "aitk-8").exists()


@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="only root can give a folder away")
def test_what_another_user_has_put_there_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "aitk-7").mkdir()
    os.chown(tmp_path / "aitk-7", 1, 1)
    env = told(tmp_path / "aitk-7")
    claim_local_disk(env)
    assert env == {"AITK_LAUNCHED": "slurm"}


def test_without_room_for_it_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    env = told(tmp_path / "file" / "aitk-7")
    claim_local_disk(env)
    assert env == {"AITK_LAUNCHED": "slurm"}
