"""What the `datasets` section changes, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from extensions_built_in.flux import tiny as flux
from extensions_built_in.wan import tiny as wan


def total(training: Any) -> float:
    return sum(tensor.double().sum().item() for tensor in training.weights().values())


def test_repeats_mirrors_and_sizes_train_in_one_run(training: Any, noise_folder: Path, capsys: Any) -> None:
    dataset = {
        "folder_path": str(noise_folder),
        "resolution": [24, 32],
        "num_repeats": 2,
        "flip_x": True,
        "flip_y": True,
        "cache_latents": True,
    }
    run = training(datasets=[dataset], train={"steps": 20, "batch_size": 7}).run()
    printed = capsys.readouterr().out
    # 6 pictures x 2 sizes x 2 repeats x 4 mirrorings
    assert "96 training samples in " in printed
    assert all(f"{size}: " in printed for size in ("24x32", "32x24", "32x32", "24x24"))
    # mirrored pictures have latents of their own, repeats do not
    assert "encoding images: 48/48" in printed
    assert run.state()["position"][0] >= 1


def test_mirrored_copies_and_weights_change_the_result(training: Any, noise_folder: Path) -> None:
    base = {"folder_path": str(noise_folder), "resolution": 32, "cache_latents": True}
    changes = [{}, {"flip_x": True}, {"loss_multiplier": 0.1}, {"scale": 0.8}]
    options = {"optimizer_params": {"eps": 1.0}}  # a step in proportion to the gradient, and so to the weight
    sums = [
        total(training(f"run{index}", datasets=[{**base, **change}], train=options).run())
        for index, change in enumerate(changes)
    ]
    assert len({round(value, 9) for value in sums}) == len(changes), sums


@pytest.mark.parametrize("crops", [False, True])
def test_a_cache_changes_nothing_also_beside_an_uncached_set(
    training: Any, noise_folder: Path, shapes_folder: Path, crops: bool
) -> None:
    """Batches mix both sets, and those with random crops are never cached."""

    def run(name: str, is_cached: bool) -> Any:
        one = {"folder_path": str(noise_folder), "resolution": 32, "cache_latents": is_cached, "square_crop": True}
        other = {"folder_path": str(noise_folder), "resolution": 32, "random_crop": crops, "cache_latents": is_cached}
        datasets = [one, other, {"folder_path": str(shapes_folder), "resolution": 32}]
        return training(name, datasets=datasets, train={"steps": 6, "batch_size": 6, "lr": 1e-3}).run()

    cached, fresh = run("cached", True), run("fresh", False)
    losses = [[row["loss/loss"] for row in each.metrics()] for each in (cached, fresh)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_cache_on_disk_is_used_by_the_next_run(training: Any, noise_folder: Path, capsys: Any) -> None:
    dataset = {"folder_path": str(noise_folder), "resolution": 32, "cache_latents_to_disk": True}
    before = sorted(noise_folder.iterdir())
    first = training("first", datasets=[dataset]).run()
    assert "encoding images: 6/6" in capsys.readouterr().out
    second = training("second", datasets=[dataset]).run()
    assert "encoding" not in capsys.readouterr().out
    assert total(first) == total(second)
    assert sorted(noise_folder.iterdir()) == before


def test_without_captions_only_the_trigger_is_trained(training: Any, tmp_path: Path, noise_folder: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in noise_folder.glob("*.png"):
        (bare / path.name).write_bytes(path.read_bytes())
        (bare / path.name).with_suffix(".txt").write_text("red")
    options = {"trigger_word": "red"}
    unloaded = training("unloaded", train={"unload_text_encoder": True}, **options).run()
    trigger = training(
        "trigger", datasets=[{"folder_path": str(bare), "resolution": 32, "cache_latents": True}], **options
    ).run()
    assert total(unloaded) == total(trigger) != total(training("captions", **options).run())


def test_min_and_max_denoising_steps_and_emphasis_change_which_times_are_trained(training: Any) -> None:
    options = [
        {},
        {"content_or_style": "content"},
        {"max_denoising_steps": 300},
        {"timestep_type": "weighted"},
        {"bypass_guidance_embedding": True},
    ]
    runs = [training(f"run{index}", train={"steps": 1, **each}).run() for index, each in enumerate(options)]
    losses = [run.metrics()[0]["loss/loss"] for run in runs]
    assert len({round(loss, 7) for loss in losses}) == len(options), losses


def write_video(path: Path, num_frames: int) -> None:
    """A video of 32x32 pixels that gets brighter."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 10 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_videos_and_pictures_train_together(training: Any, tmp_path: Path, noise_folder: Path, capsys: Any) -> None:
    """With the first frame given, as TI2V-5B takes it, and all encoded ahead."""
    model = wan.save_tiny(tmp_path / "wan", small=True)
    folder = tmp_path / "videos"
    folder.mkdir()
    for index, count in enumerate((9, 9, 12)):
        write_video(folder / f"{index}.mp4", count)
        (folder / f"{index}.txt").write_text("a red circle")
    (folder / "still.png").write_bytes((noise_folder / "2.png").read_bytes())
    dataset = {"folder_path": str(folder), "resolution": 32, "cache_latents": True, "num_frames": 9, "do_i2v": True}
    run = training(
        model={"arch": "wan22_5b", "name_or_path": str(model)},
        network={"network_kwargs": {"only_if_contains": ["to_q"]}},
        datasets=[dataset],
        train={"steps": 4, "batch_size": 2},
        sample={"prompts": []},
    ).run()
    printed = capsys.readouterr().out
    assert "4 training samples in 2 buckets (32x32: 1, 32x32x9: 3)" in printed
    # two of the videos have the same content
    assert "encoding references: 2/2" in printed
    losses = [row["loss/loss"] for row in run.metrics()]
    assert len(losses) == 4 and all(0 < loss < 100 for loss in losses)
    assert total(run) != 0


def test_references_train_from_end_to_end(training: Any, tmp_path: Path, noise_folder: Path) -> None:
    model = flux.save_tiny(tmp_path / "kontext", pipeline="FluxKontextPipeline")
    edits = tmp_path / "edits"
    edits.mkdir()
    for path in noise_folder.glob("*.png"):
        Image.open(path).transpose(Image.Transpose.ROTATE_180).save(edits / path.name)
    changes: list[dict[str, Any]] = [{"control_path": str(edits)}, {"control_path": str(noise_folder)}, {}]
    sums = []
    for index, change in enumerate(changes):
        dataset = {"folder_path": str(noise_folder), "resolution": 32, "cache_latents": True, **change}
        each = training(
            f"run{index}",
            model={"arch": "flux_kontext", "name_or_path": str(model)},
            datasets=[dataset],
            train={"steps": 2, "optimizer_params": {"eps": 1.0}},
            sample={"prompts": []},
        )
        sums.append(total(each.run()))
    assert len(set(sums)) == 3
