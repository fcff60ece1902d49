"""The example family learns colors, takes a LoRA, and reads back what a full fine-tune wrote."""

from pathlib import Path

import pytest
import torch

from toolkit.context import Context
from toolkit.models.conditions import collate
from toolkit.models.family import Family
from toolkit.registry import Registry
from toolkit.sampling.render import make_scheduler
from toolkit.sampling.sample import sample
from toolkit.training.batch import Batch
from toolkit.training.path import Path as NoisePath
from toolkit.training.step import step_loss
from toolkit.training.times import Times

COLORS = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}


def build(checkpointing: bool = False, **keys: object) -> Family:
    plugin = Registry.discover(env={}).load("models", "example_pixels")
    config = plugin.model_validate({"arch": "example_pixels", "width": 32, "depth": 1, **keys})
    context = Context(torch.device("cpu"), torch.float32, seed=1)
    return config.build(context, checkpointing=checkpointing, bypass_guidance=False)


def batch_of(family: Family, rng: torch.Generator, size: int = 8) -> Batch:
    """Flat pictures and the names of their colors."""
    latents = torch.stack([torch.tensor(color)[:, None, None].expand(3, size, size) for color in COLORS.values()])
    conditions = collate(family.encode_prompt([f"a {name} picture" for name in COLORS]))
    noise = torch.randn(latents.shape, generator=rng)
    return Batch(latents, conditions, torch.ones(3), torch.rand(3, generator=rng), noise)


def train(family: Family, num_steps: int) -> None:
    rng = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(family.denoiser.requires_grad_(True).parameters(), lr=3e-3)
    for _ in range(num_steps):
        loss = step_loss(family, batch_of(family, rng), NoisePath.of(family.facts), Times("linear"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_pictures_show_the_color_of_their_prompt() -> None:
    family = build()
    with family.parts.using("transformer"):
        train(family, 120)
        noise = torch.randn(3, 3, 8, 12, generator=torch.Generator().manual_seed(5))
        yes = collate(family.encode_prompt([f"a {name} picture" for name in COLORS]))
        made = family.decode(sample(family, make_scheduler(family.facts), noise, yes, steps=8))
    assert made.mean(dim=(2, 3)).argmax(dim=1).tolist() == [0, 1, 2]


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        family = build(checkpointing)
        with family.parts.using("transformer"):
            family.denoiser.train().requires_grad_(True)
            batch = batch_of(family, torch.Generator().manual_seed(0))
            step_loss(family, batch, NoisePath.of(family.facts), Times()).backward()
            gradients.append([param.grad for param in family.denoiser.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_full_fine_tune_is_read_back(tmp_path: Path) -> None:
    family = build()
    with family.parts.using("transformer"):
        train(family, 2)
        family.denoiser.save_pretrained(tmp_path / "transformer")
        weights = {name: tensor.clone() for name, tensor in family.denoiser.state_dict().items()}
    again = build(name_or_path=str(tmp_path))
    with again.parts.using("transformer"):
        torch.testing.assert_close(dict(again.denoiser.state_dict()), weights, rtol=0, atol=0)


def test_every_layer_that_a_network_would_adapt_lies_in_a_block() -> None:
    from toolkit.networks.targets import adaptable_layers, choose

    family = build()
    (trainable,) = family.facts.trainables
    with family.parts.using("transformer"):
        names = adaptable_layers(family.denoiser)
    assert len(choose(names, trainable.prefix, trainable.blocks).names) == 4


@pytest.mark.parametrize("text", ["", "one", "two words"])
def test_text_rows_count_words(text: str) -> None:
    (row,) = build().encode_prompt([text])
    assert row["words"].sum() == len(text.split())
