"""What all tests share: a quiet environment, the tiny FLUX checkpoint, a small folder of captioned pictures.

Imports nothing heavy, so that tests of light modules stay fast.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

import run

if TYPE_CHECKING:
    from toolkit.context import Context

# read when torch and huggingface_hub are imported, and handed down to subprocesses
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
run.hide_own_datasets()
# a shell that starts the tests in the background has them ignore ctrl+c, and the programs that they start as well
signal.signal(signal.SIGINT, signal.default_int_handler)
pytest.register_assert_rewrite("family_contract", "family_subject")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Random numbers of a test and of its fixtures do not depend on the tests that this process ran before it."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)


@pytest.fixture(scope="session")
def cpu() -> Context:
    """One process, on the CPU, in fp32."""
    import torch

    from toolkit.context import Context

    return Context(torch.device("cpu"), torch.float32, seed=42)


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny FLUX.1-dev in diffusers format. Do not write to it."""
    from extensions_built_in.flux.tiny import save_tiny

    # parts are freed by collecting garbage, which is quick if it need not look at the imported libraries
    gc.freeze()
    return save_tiny(tmp_path_factory.mktemp("tiny") / "flux")


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 drawn pictures of 64x64, 0.png to 15.png, with captions in .txt files. Do not write to it."""
    from toolkit.assets.shapes import all_specs, caption, draw

    folder, rng = tmp_path_factory.mktemp("shapes"), Random(0)
    for index, spec in enumerate(rng.sample(list(all_specs()), 16)):
        draw(spec, rng).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(caption(spec), encoding="utf-8")
    return folder
