"""LoRAs of several parts while pictures are made: their files are read once, and let go when they act."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from extensions_built_in.stable_diffusion.tiny import save_tiny_xl
from toolkit.config.plugins import load_plugin
from toolkit.context import make_context
from toolkit.models.family import Family
from toolkit.networks.keys.file import read_sound
from toolkit.networks.loras import Lora, Loras
from toolkit.networks.targets import adaptable_layers
from toolkit.reporting.progress import bar
from toolkit.sampling.prompts import SamplePrompt
from toolkit.sampling.studio import Studio
from toolkit.trainer.frozen import Frozen

PARTS = ("unet", "text_encoder", "text_encoder_2")
OPEN_AND_CLOSE, NONBLOCK, EVENT_BYTES = 0x38, 0x800, 16


@contextmanager
def opens_of(path: Path) -> Iterator[Callable[[], int]]:
    """How often a file has been opened and closed since the last time that this was asked (Linux's inotify)."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(NONBLOCK)
    assert watch >= 0 and libc.inotify_add_watch(watch, os.fsencode(path), OPEN_AND_CLOSE) >= 0

    def count() -> int:
        try:
            # equal events in a row are told as one, but each time that it is read it is opened and then closed
            return len(os.read(watch, 1 << 16)) // EVENT_BYTES
        except BlockingIOError:
            return 0

    try:
        yield count
    finally:
        os.close(watch)


@pytest.fixture
def family(tmp_path: Path) -> Family:
    section = load_plugin("models", "sdxl").model_validate(
        {"arch": "sdxl", "name_or_path": str(save_tiny_xl(tmp_path / "xl"))}
    )
    context = make_context("cpu", "fp32", 0)
    return section.build(context, checkpointing=False, bypass_guidance=False)


@pytest.fixture
def lora(family: Family, tmp_path: Path) -> Path:
    """A layer of the U-Net and one of each text encoder."""
    rng, tensors = torch.Generator().manual_seed(0), {}
    for part in PARTS:
        module = family.parts.source.empty(part, torch.float32)
        name = adaptable_layers(module)[0]
        rows, columns = module.get_submodule(name).weight.shape[:2]
        tensors[f"{part}.{name}.lora_A.weight"] = torch.randn(2, columns, generator=rng)
        tensors[f"{part}.{name}.lora_B.weight"] = torch.randn(rows, 2, generator=rng)
    save_file(tensors, tmp_path / "lora.safetensors")
    return tmp_path / "lora.safetensors"


def prompt(multiplier: float) -> SamplePrompt:
    return SamplePrompt("a cat", width=64, height=64, steps=1, guidance=1.0, network_multiplier=multiplier)


@pytest.mark.skipif(sys.platform != "linux", reason="counts by inotify")
def test_a_file_is_read_once_for_all_parts_and_strengths(family: Family, lora: Path) -> None:
    section = load_plugin("models", "sdxl").model_validate({"arch": "sdxl", "name_or_path": "x/y"})
    with opens_of(lora) as opens:
        read_sound(lora)
        once = opens()
        assert once > 0
        loras = Loras(family, section.key_names, [Lora(str(lora), 0.5)], lambda text: None)
        assert [place.trainable.part for place in loras.places] == list(PARTS)
        assert opens() == once
        studio = Studio(family, make_context("cpu", "fp32", 0), Frozen(section, family), loras)
        prompts = [prompt(1.0), prompt(0.0)]
        studio.encode(prompts, bar)
        with studio.opened():
            assert opens() == 0
            (whole,), (without,) = studio.make(prompts)
        assert np.abs(np.asarray(whole, float) - np.asarray(without, float)).max() > 0


def test_layers_are_not_kept_twice_and_can_act_again(family: Family, lora: Path) -> None:
    names = load_plugin("models", "sdxl").key_names
    loras = Loras(family, names, [Lora(str(lora))], lambda text: None)
    with family.parts.using("text_encoder"):
        for _ in range(2):
            with loras.attached(["text_encoder"]):
                kept = {place.trainable.part: len(place.layers) for place in loras.places}
                assert kept == {"unet": 1, "text_encoder": 0, "text_encoder_2": 1}
        lora.unlink()
        with pytest.raises(FileNotFoundError), loras.attached(["text_encoder"]):
            pass
    with family.parts.using("text_encoder_2"), loras.attached(["text_encoder_2"]):
        pass


def test_a_file_of_other_sizes_is_the_fault_of_its_key(family: Family, lora: Path) -> None:
    tensors = {name: tensor[:, :1] if "lora_A" in name else tensor for name, tensor in read_sound(lora)[0].items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, lora)
    loras = Loras(family, load_plugin("models", "sdxl").key_names, [Lora(str(lora))], lambda text: None)
    with (
        family.parts.using("unet"),
        pytest.raises(ValueError, match=r"^loras\.0\.path: .*the file belongs to another model"),
        loras.attached(["unet"]),
    ):
        pass
