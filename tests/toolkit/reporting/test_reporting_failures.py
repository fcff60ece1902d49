"""Real failures, each explained in one sentence that names a key."""

import errno
from pathlib import Path

import pytest
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from toolkit.reporting.failures import explain


def failure(action: object) -> BaseException:
    """Return what a call raises."""
    with pytest.raises(BaseException) as caught:
        action()  # type: ignore[operator]
    return caught.value


CPU_FULL = failure(lambda: torch.empty(10**15))
GPU_FULL = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


@pytest.mark.parametrize(
    ("context", "key"),
    [
        ({"gradient_checkpointing": False, "batch_size": 4}, "train.gradient_checkpointing: true"),
        ({"gradient_checkpointing": True, "batch_size": 4}, "train.batch_size (now 4)"),
        ({"batch_size": 1, "quantize": False}, "model.quantize: true"),
        ({"batch_size": 1, "optimizer": "adamw"}, "train.optimizer: adamw8bit"),
        ({"batch_size": 1, "resolution": [512, 1024]}, "datasets.resolution (now [512, 1024])"),
        ({}, "datasets.resolution"),
    ],
)
def test_memory_names_the_cheapest_key_left(context: dict[str, object], key: str) -> None:
    for error, place in ((CPU_FULL, "RAM ran out"), (GPU_FULL, "GPU memory ran out")):
        sentence = explain(error, {**context, "step": 7})
        assert sentence is not None
        assert sentence.startswith(f"{place} at step 7: ") and key in sentence
        assert "\n" not in sentence and sentence.endswith(".")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk_by_a_real_one() -> None:
    def write() -> None:
        with open("/dev/full", "w") as file:
            file.write("x" * 100_000)

    error = failure(write)
    assert isinstance(error, OSError) and error.errno == errno.ENOSPC
    sentence = explain(error, {"folder": "output/run"})
    assert sentence is not None and "output/run" in sentence
    assert "save.max_step_saves_to_keep" in sentence and "training_folder" in sentence


def test_full_disk_inside_a_library_error() -> None:
    error = RuntimeError("Error while serializing: IoError(Os { code: 28, message: No space left on device })")
    sentence = explain(error, {})
    assert sentence is not None and sentence.startswith("the disk is full")


def test_hint_of_any_exception_also_of_a_cause() -> None:
    class NonFiniteLoss(RuntimeError):
        hint = "lower train.lr or set train.dtype: bf16."

    error = NonFiniteLoss("the loss is NaN at step 12.")
    expected = "the loss is NaN at step 12: lower train.lr or set train.dtype: bf16."
    assert explain(error, {}) == expected

    def wrap() -> None:
        try:
            raise error
        except NonFiniteLoss as cause:
            raise RuntimeError("the run failed") from cause

    assert explain(failure(wrap), {}) == expected


def test_hub_offline_gated_and_missing(tmp_path: Path) -> None:
    context = {"model": "black-forest-labs/FLUX.1-dev"}
    offline = failure(lambda: snapshot_download("a/b", local_files_only=True, cache_dir=tmp_path))
    sentence = explain(offline, context)
    assert sentence is not None and "cannot be reached" in sentence and "model.name_or_path" in sentence
    told = ValueError("model.lora_path: a/b is not in the cache")
    told.__cause__ = offline
    assert explain(told, context) is None
    # Made without the response of the server, whose class depends on the version of huggingface_hub.
    gated = explain(GatedRepoError.__new__(GatedRepoError), context)
    assert gated is not None and "FLUX.1-dev is gated" in gated and "HF_TOKEN" in gated
    missing = explain(RepositoryNotFoundError.__new__(RepositoryNotFoundError), context)
    assert missing is not None and "neither a folder" in missing and "model.name_or_path" in missing


def test_other_errors_are_not_explained_away() -> None:
    for error in (ValueError("x"), OSError(errno.EACCES, "denied"), RuntimeError("shape mismatch"), KeyError("a")):
        assert explain(error, {"step": 1}) is None
