"""Names of weights, the manifest, and what pruning and resuming make of it."""

import json
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from toolkit.atomic import atomic_path
from toolkit.run_folder import RunFolder, RunFolderBusy, is_complete


def write_weights(path: Path, metadata: dict[str, str] | None = None) -> Path:
    """Write a small weights file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": numpy.arange(64, dtype="f4"), "b": numpy.ones((3, 5), "f2")}, path, metadata)
    return path


def save(folder: RunFolder, step: int, final: bool = False) -> Path:
    """Save weights as a run does."""
    path = write_weights(folder.weights_path(None if final else step))
    folder.record(step, [path], final)
    return path


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.fixture(params=["run", "foo[v2]", "a (1) *?", "o"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> RunFolder:
    return RunFolder(tmp_path / "my_LoRAs" / request.param, request.param)


def names(folder: RunFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir()}


def test_names() -> None:
    folder = RunFolder(Path("output/run"), "my_lora")
    assert folder.weights_path(500) == Path("output/run/my_lora_000000500.safetensors")
    assert folder.weights_path(None) == Path("output/run/my_lora.safetensors")
    assert folder.weights_path(500, "_high_noise").name == "my_lora_000000500_high_noise.safetensors"
    assert folder.weights_path(500, extension="").name == "my_lora_000000500"
    assert folder.state_path == Path("output/run/optimizer.pt")


def test_prune_deletes_the_oldest_steps_that_the_manifest_names(folder: RunFolder) -> None:
    # 100 is written last: the step counts, not the time.
    for step in (200, 300, 400, 100):
        save(folder, step)
    save(folder, 400, final=True)
    users = [f"{folder.name}_000000050.safetensors", f"{folder.name}_notes.txt", f"{folder.name}_best.safetensors"]
    for name in users:
        write_weights(folder.path / name)
    deleted = folder.prune(2)
    assert {path.name for path in deleted} == {folder.weights_path(step).name for step in (100, 200)}
    kept = [folder.weights_path(step).name for step in (300, 400, None)]
    assert names(folder) == {*users, *kept, "checkpoints.json"}
    assert [(c.step, c.final) for c in folder.checkpoints()] == [(300, False), (400, False), (400, True)]
    assert folder.prune(2) == []


def test_prune_never_deletes_the_newest(folder: RunFolder) -> None:
    save(folder, 100)
    save(folder, 200)
    with pytest.raises(AssertionError):
        folder.prune(0)
    folder.prune(1)
    assert folder.newest_weights() == (200, (folder.weights_path(200),))


def test_prune_keeps_a_file_that_a_newer_save_wrote_again(folder: RunFolder) -> None:
    path = write_weights(folder.weights_path(None))
    folder.record(100, [path])
    save(folder, 200)
    folder.record(200, [path], final=True)
    assert folder.prune(1) == []
    assert path.exists() and [c.step for c in folder.checkpoints()] == [200, 200]


def test_prune_deletes_folders_and_survives_files_that_are_gone(folder: RunFolder) -> None:
    for step in (1, 2, 3):
        with atomic_path(folder.weights_path(step, extension="")) as temporary:
            write_weights(temporary / "transformer" / "model.safetensors")
        folder.record(step, [folder.weights_path(step, extension="")])
    (folder.weights_path(1, extension="") / "transformer" / "model.safetensors").unlink()
    assert folder.newest_weights([""]) == (3, (folder.weights_path(3, extension=""),))
    folder.prune(1)
    assert names(folder) == {folder.weights_path(3, extension="").name, "checkpoints.json"}


def test_newest_is_by_step_not_by_time(folder: RunFolder) -> None:
    for step in (900, 1000, 100):
        save(folder, step)
    (folder.path / f"{folder.name}_zzz_notes.txt").write_text("newer than all")
    assert folder.newest_weights() == (1000, (folder.weights_path(1000),))
    save(folder, 1200, final=True)
    assert folder.newest_weights() == (1200, (folder.weights_path(None),))


@pytest.mark.parametrize("size", [0, 4, 40, 250, -1])
def test_broken_newest_is_told_and_skipped(tmp_path: Path, size: int) -> None:
    folder = RunFolder(tmp_path, "run")
    save(folder, 100)
    truncate(save(folder, 200), size)
    notices: list[str] = []
    assert folder.newest_weights(notice=notices.append) == (100, (folder.weights_path(100),))
    assert len(notices) == 1 and "run_000000200.safetensors is incomplete" in notices[0]


ENDS = ("_high_noise.safetensors", "_low_noise.safetensors")


def save_two(folder: RunFolder, step: int) -> list[Path]:
    """Two experts, recorded as one save."""
    paths = [write_weights(folder.weights_path(step, "", end)) for end in ENDS]
    folder.record(step, paths)
    return paths


def test_pruning_counts_steps_and_not_files(folder: RunFolder) -> None:
    for step in (1, 2, 3):
        save_two(folder, step)
    folder.prune(2)
    assert names(folder) == {*(f"{folder.name}_{step:09d}{end}" for step in (2, 3) for end in ENDS), "checkpoints.json"}


def test_the_newest_save_has_all_its_files(folder: RunFolder) -> None:
    older, newer = save_two(folder, 1), save_two(folder, 2)
    assert folder.newest_weights(ENDS) == (2, tuple(newer))
    newer[1].unlink()
    notices: list[str] = []
    assert folder.newest_weights(ENDS, notices.append) == (1, tuple(older))
    assert len(notices) == 1 and f"{newer[1]} is missing" in notices[0]
    assert folder.newest_weights(ENDS[:1]) == (2, (newer[0],))


def test_files_of_experts_that_the_manifest_lacks_are_found(folder: RunFolder) -> None:
    paths = tuple(write_weights(folder.weights_path(700, "", end)) for end in ENDS)
    write_weights(folder.weights_path(900, "_LoRA"))
    assert folder.newest_weights(ENDS) == (700, paths)
    assert folder.newest_weights() is None


def test_complete_files(tmp_path: Path) -> None:
    assert is_complete(write_weights(tmp_path / "a.safetensors"))
    assert is_complete(write_weights(tmp_path / "b.safetensors", {"format": "pt"}))
    (tmp_path / "c.safetensors").write_bytes(b"not a weights file at all")
    assert not is_complete(tmp_path / "c.safetensors")
    assert not is_complete(tmp_path / "absent.safetensors")
    (tmp_path / "longer.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes() + b"x")
    assert not is_complete(tmp_path / "longer.safetensors")


def test_folder_of_ai_toolkit_is_continued(folder: RunFolder) -> None:
    assert folder.newest_weights() is None
    write_weights(folder.weights_path(500))
    write_weights(folder.weights_path(None))
    write_weights(folder.path / f"{folder.name}_LoRA_000000900.safetensors")
    assert folder.newest_weights() == (500, (folder.weights_path(500),))
    write_weights(folder.weights_path(None), {"training_info": json.dumps({"step": 750, "epoch": 3})})
    assert folder.newest_weights() == (750, (folder.weights_path(None),))


def test_saving_a_step_again_lists_it_once(folder: RunFolder) -> None:
    for _ in range(2):
        save(folder, 100)
        save(folder, 100, final=True)
    save(folder, 150, final=True)
    assert [(c.step, c.final) for c in folder.checkpoints()] == [(100, False), (150, True)]


def test_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints.json").write_text("{}")
    with pytest.raises(ValueError, match=r"checkpoints.json is damaged"):
        RunFolder(tmp_path, "run").prune(1)


def test_lock_clears_what_a_killed_run_left(folder: RunFolder) -> None:
    folder.samples_dir.mkdir(parents=True)
    for parent in (folder.path, folder.samples_dir):
        (parent / ".aitk-tmp-0123456789ab-x.png").write_text("half")
    with folder.lock():
        assert names(folder) == {"samples", ".aitk.lock"}
        assert list(folder.samples_dir.iterdir()) == []
        with pytest.raises(RunFolderBusy), folder.lock():
            pass
    assert names(folder) == {"samples"}


def test_record_of_the_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", "run")
    folder.write_config("job: train\n")
    folder.write_versions({"torch": "2.13.0"})
    assert (folder.path / "config.yaml").read_text() == "job: train\n"
    assert json.loads((folder.path / "versions.json").read_text()) == {"torch": "2.13.0"}


def test_a_save_that_was_cut_short_is_pruned_like_any_other(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run")
    save(folder, 100)
    files = [folder.weights_path(200), folder.weights_path(200, "_second")]
    folder.begin(200, files)
    write_weights(files[0])
    assert [c.step for c in folder.checkpoints()] == [100]
    folder.begin(300, [folder.weights_path(300)])
    assert [(c.step, c.files) for c in folder.checkpoints()][1:] == [(200, (files[0].name,))]
    save(folder, 300)
    folder.prune(1)
    assert names(folder) == {folder.weights_path(300).name, "checkpoints.json"}
    assert "begun" not in json.loads((tmp_path / "checkpoints.json").read_text())


def test_a_save_that_was_cut_short_before_its_first_file_is_forgotten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run")
    save(folder, 100)
    folder.begin(150, [folder.weights_path(150)])
    folder.begin(200, [folder.weights_path(200)])
    save(folder, 200)
    assert [c.step for c in folder.checkpoints()] == [100, 200]
    folder.begin(200, [folder.weights_path(200)])
    folder.begin(200, [folder.weights_path(None)], final=True)
    assert [(c.step, c.final) for c in folder.checkpoints()] == [(100, False), (200, False)]


def test_weights_of_a_save_that_was_cut_short_are_not_continued(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run")
    save(folder, 100)
    folder.begin(200, [folder.weights_path(200)])
    write_weights(folder.weights_path(200))
    assert folder.newest_weights() == (100, (folder.weights_path(100),))
    folder.record(200, [folder.weights_path(200)])
    assert folder.newest_weights() == (200, (folder.weights_path(200),))
