"""What on this machine keeps a config from running."""

import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from toolkit.config import JobConfig, load, validate
from toolkit.config.preflight import bytes_needed, pictures, preflight

Read = Callable[..., JobConfig]


@pytest.fixture
def ready(folder: Path) -> Path:
    """A working directory with a picture."""
    (folder / "pictures/deep").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "pictures/deep/a.PNG")
    return folder


def said(config: JobConfig) -> list[str]:
    return [str(problem) for problem in preflight(config)]


def test_nothing_is_wrong(ready: Path, read: Read) -> None:
    assert said(read()) == []


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"datasets": [{"folder_path": "picture"}]},
         "datasets.0.folder_path: there is no folder picture; did you mean pictures?"),
        ({"datasets": [{"folder_path": "pictures/deep/a.PNG"}]}, "datasets.0.folder_path: pictures/deep/a.PNG is not"),
        ({"datasets": [{"folder_path": None, "dataset_path": "empty"}]}, "datasets.0.dataset_path: there is no"),
        ({"datasets": [{"control_path": ["pictures", "edits"]}]}, "datasets.0.control_path: there is no folder edits"),
        ({"datasets": [{"mask_path": "masks"}]}, "datasets.0.mask_path: there is no folder masks"),
        ({"datasets": [{"folder_path": "list.json"}]}, "datasets.0.folder_path: there is no file list.json"),
        ({"datasets": [{"folder_path": "t/{0..3}.tar"}]}, "datasets.0.folder_path: there is no file t/{0..3}.tar"),
        ({"datasets": [{"augmentations": [{"method": "Blurr"}]}]},
         "datasets.0.augmentations.0: albumentations has no transform Blurr; did you mean Blur?"),
        ({"datasets": [{"augments": ["Blur", "Rotat"]}]},
         "datasets.0.augments.1: albumentations has no transform Rotat; did you mean Rotate?"),
        ({"datasets": [{"inpaint_path": "picture"}]}, "datasets.0.inpaint_path: there is no folder picture; did you"),
        ({"datasets": [{"random_triggers": "words.txt"}]}, "datasets.0.random_triggers: there is no file words.txt"),
        ({"model": {"name_or_path": "./flux"}}, "model.name_or_path: there is no file or folder ./flux"),
        ({"model": {"name_or_path": "/models/flux"}}, "model.name_or_path: there is no file or folder /models/flux"),
        ({"model": {"name_or_path": "C:\\models\\flux"}}, "model.name_or_path: there is no file or folder C:"),
        ({"datasets": [{"folder_path": "D:\new"}]},
         "datasets.0.folder_path: there is no folder 'D:\\new'; write a path with / in it, or in single quotes"),
        ({"model": {"name_or_path": "flux dev"}}, "model.name_or_path: 'flux dev' is neither here nor a name of the"),
        ({"model": {"name_or_path": "builtin:nothing"}}, "model.name_or_path: there is no embedded model 'builtin:no"),
        ({"model": {"vae_path": "~/no/vae"}}, "model.vae_path: there is no file or folder ~/no/vae"),
        ({"model": {"vae_path": "pictures/deep/a.PNG"}}, "model.vae_path: pictures/deep/a.PNG is no .safetensors file"),
        ({"model": {"unet_path": "owner/flux/flux.ckpt"}}, "model.unet_path: 'owner/flux/flux.ckpt' is neither here"),
        ({"model": {"name_or_path": "pictures", "revision": "main"}},
         "model.revision: is for a repository of the Hugging Face Hub, but model.name_or_path is here"),
        ({"train": {"validation_config": {"validation_items": [{"image_path": "b.png"}]}}},
         "train.validation_config.validation_items.0.image_path: there is no file b.png"),
        ({"training_folder": "pictures/deep/a.PNG/x"}, "training_folder: "),
    ],
)  # fmt: skip
def test_one_problem(ready: Path, read: Read, sections: dict[str, Any], expected: str) -> None:
    (ready / "empty/.hidden").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(ready / "empty/.hidden/a.png")
    (ready / "empty/notes.txt").write_text("", encoding="utf-8")
    (line,) = said(read(**sections))
    assert line.startswith(expected)


@pytest.mark.parametrize(
    "name",
    [
        "owner/flux",
        "owner/flux/flux.safetensors",
        "owner/flux/split_files/vae/flux.safetensors",
        "https://huggingface.co/owner/flux/blob/main/flux.safetensors",
        "https://huggingface.co/owner/flux/resolve/v1/flux.safetensors?download=true",
    ],
)
def test_what_the_hub_may_have_is_no_problem(ready: Path, read: Read, name: str) -> None:
    assert said(read(model={"name_or_path": name, "revision": "v1", "vae_path": name})) == []


def test_problems_have_the_line_of_the_key(ready: Path, minimal: str) -> None:
    Path("job.yaml").write_text(minimal.replace("pictures", "elsewhere"), encoding="utf-8")
    assert said(validate(load("job.yaml"))) == ["job.yaml:9: datasets.0.folder_path: there is no folder elsewhere"]


def test_a_full_disk(ready: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 10**8))
    (line,) = said(read(training_folder="new/folder"))
    assert line.startswith(f"training_folder: 0.1 GB are free in {ready}, but the checkpoints need about 0.6 GB")
    assert line.endswith("lower save.max_step_saves_to_keep, or make room")


def test_a_small_checkpoint_needs_little_room(ready: Path, read: Read) -> None:
    (ready / "tiny/transformer").mkdir(parents=True)
    (ready / "tiny/transformer/model.safetensors").write_bytes(bytes(1000))
    process: Any = read(model={"name_or_path": "tiny"}, save={"max_step_saves_to_keep": 2}).processes[0]
    assert bytes_needed(process.save, process.network, process.model) == 1000 * (2 + 1 + 3)


def test_cache_folders_hold_no_pictures(ready: Path) -> None:
    for name in ("_latent_cache", "_controls", ".cache"):
        (ready / "pictures" / name).mkdir()
        Image.new("RGB", (8, 8)).save(ready / "pictures" / name / "a.png")
    assert [path.name for path in pictures(Path("pictures"))] == ["a.PNG"]


def test_videos_count_where_they_are_trained(ready: Path, read: Read) -> None:
    (ready / "clips").mkdir()
    (ready / "clips" / "a.mp4").touch()
    (line,) = said(read(datasets=[{"folder_path": "clips"}]))
    assert "there is no picture in clips" in line and "for its 1 videos set num_frames above 1" in line
    assert said(read(datasets=[{"folder_path": "clips", "num_frames": 17}])) == []


def test_files_that_list_or_hold_pictures_are_data_sets(ready: Path, read: Read) -> None:
    for name in ("list.jsonl", "part-000.tar", "saved/data.arrow"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    for path in ("list.jsonl", "part-000.tar", "part-{000..012}.tar", "saved"):
        assert said(read(datasets=[{"folder_path": path}])) == []
