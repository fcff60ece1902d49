"""The contract test of a model family, as functions: each raises AssertionError when its promise is broken.

`tests/extensions_built_in/test_families.py` runs them on every family; the tests of a family run them on sabotaged
versions of it, to show that they notice. Shapes: toolkit/shapes.md.
"""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from extensions_built_in.networks.lora import LoraNetwork
from toolkit.context import Context
from toolkit.data.cache import RowCache
from toolkit.models.conditions import Conditions, Row, collate
from toolkit.models.family import Family
from toolkit.registry import get_registry
from toolkit.sampling.prompts import SamplePrompt
from toolkit.sampling.render import make_scheduler, render, texts_of
from toolkit.sampling.sample import sample
from toolkit.training.batch import Batch
from toolkit.training.noise import draw
from toolkit.training.path import Path as NoisePath
from toolkit.training.step import step_loss
from toolkit.training.times import Times

TEXTS = ("a red circle on a blue background", "two dogs")
NEGATIVE = "a photo of a cat, detailed"
STEPS = 4
TIMES = torch.tensor([0.5, 0.25], dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """One variant of a family: how its tiny checkpoint is made, and what diffusers does where a family packs."""

    arch: str
    save: Callable[[Path], Path]
    latents: Callable[[Any, Tensor, int, int], Tensor]
    """(pipeline, its "latent" output, height, width) -> [B, C, h, w]."""
    encode_image: Callable[[Any, Tensor], Tensor]
    """(pipeline, pixels) -> normalized latents."""
    encode_prompt: Callable[[Any, list[str]], Mapping[str, Tensor]]
    """(pipeline, texts) -> the conditions, [B, ...]."""
    call: Mapping[str, Any] = field(default_factory=dict)
    """More arguments of the pipeline."""
    guidance: float = 3.5
    takes_guidance: bool = True
    """Whether the network has a guidance input."""


class Subject:
    """A case on disk."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, case.save(folder)
        # parts are freed by collecting garbage, which is quick if it need not look at the imported libraries
        gc.freeze()
        self.context = Context(torch.device("cpu"), torch.float32, seed=42)

    def build(self, dtype: torch.dtype = torch.float32, checkpointing: bool = False, bypass: bool = False) -> Family:
        """The family, by the door that a config takes."""
        plugin = get_registry().load("models", self.case.arch)
        config = plugin.model_validate({"arch": self.case.arch, "name_or_path": str(self.folder)})
        context = Context(self.context.device, dtype, seed=42)
        return config.build(context, checkpointing=checkpointing, bypass_guidance=bypass)

    def load_pipeline(self) -> Any:
        """The diffusers pipeline, quiet."""
        pipeline = diffusers.DiffusionPipeline.from_pretrained(self.folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @cached_property
    def pipeline(self) -> Any:
        """One for all checks that do not change it."""
        return self.load_pipeline()

    def run_pipeline(self, pipeline: Any, family: Family, output: str, guidance: float | None = None) -> Tensor:
        """What diffusers makes of TEXTS with seeds 0 and 1: latents, or the picture in 0..1."""
        height, width = sizes(family)
        extra: dict[str, Any] = dict(self.case.call)
        if family.facts.guidance == "cfg":
            extra["negative_prompt"] = [NEGATIVE] * len(TEXTS)
        made = pipeline(
            list(TEXTS),
            height=height,
            width=width,
            num_inference_steps=STEPS,
            guidance_scale=self.case.guidance if guidance is None else guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in range(len(TEXTS))],
            output_type=output,
            **extra,
        ).images
        return self.case.latents(pipeline, made, height, width) if output == "latent" else made

    def render(self, family: Family, guidance: float | None = None) -> Tensor:
        """What we make of the same; every part must be loaded."""
        height, width = sizes(family)
        scale = self.case.guidance if guidance is None else guidance
        prompts = [
            SamplePrompt(text, NEGATIVE, width, height, seed, STEPS, scale, index=seed)
            for seed, text in enumerate(TEXTS)
        ]
        rows = [
            dict(zip(texts, family.encode_prompt(texts, negative=negative), strict=True)) if texts else {}
            for texts, negative in zip(texts_of(prompts, family.facts), (False, True), strict=True)
        ]
        return torch.cat(render(family, self.context, prompts, *rows))


# -- small tools ------------------------------------------------------------------------------------------------------


def sizes(family: Family) -> tuple[int, int]:
    """A small height and width that differ."""
    return 4 * family.facts.multiple, 3 * family.facts.multiple


@contextmanager
def loaded(family: Family) -> Iterator[Family]:
    """All parts in memory."""
    with family.parts.using(*(name for names in family.needs.values() for name in names)):
        yield family


def noise_like(family: Family, count: int = len(TEXTS), seed: int = 0) -> Tensor:
    """[count, C, h, w]."""
    facts, (height, width) = family.facts, sizes(family)
    shape = (count, facts.channels, height // facts.stride, width // facts.stride)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rows_of(family: Family, texts: Sequence[str] = TEXTS) -> list[Row]:
    """The rows of `texts`, with a guidance."""
    return [{**row, "guidance": torch.tensor(1.0)} for row in family.encode_prompt(list(texts))]


def assert_near(found: Tensor, wanted: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Equal but for `tolerance` times the mean size of what is wanted (at least 1)."""
    assert found.shape == wanted.shape, f"{what}: {tuple(found.shape)}, expected {tuple(wanted.shape)}"
    difference, size = (found - wanted).abs().max().item(), max(1.0, wanted.abs().mean().item())
    assert difference <= tolerance * size, f"{what}: off by {difference:.2e}, sizes are about {size:.2g}"


def assert_differs(one: Tensor, other: Tensor, what: str) -> None:
    """An effect far above rounding."""
    difference, size = (one - other).abs().max().item(), max(1.0, one.abs().mean().item())
    assert difference > 1e-3 * size, f"{what} has no effect: {difference:.2e}"


@contextmanager
def complaints(*libraries: str) -> Iterator[list[str]]:
    """What the libraries log as warning or worse, or warn of, inside the block."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(f"{record.name}: {record.getMessage()}")

    listener = Listener(logging.WARNING)
    with ExitStack() as stack, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for library in libraries:
            logger = logging.getLogger(library)
            logger.addHandler(listener)
            stack.callback(logger.removeHandler, listener)
        yield found
        found += [str(warning.message) for warning in caught]


# -- the promises -----------------------------------------------------------------------------------------------------


def check_shapes(family: Family) -> None:
    """Every verb runs with just the parts that it says it needs, and keeps to the documented shapes."""
    facts, (height, width) = family.facts, sizes(family)
    latent_shape = (2, facts.channels, height // facts.stride, width // facts.stride)
    with torch.no_grad():
        with family.parts.using(*family.needs["encode_image"]):
            latents = family.encode_image(torch.rand(2, 3, height, width) * 2 - 1)
        assert latents.shape == latent_shape and latents.dtype == torch.float32 and latents.isfinite().all()
        with family.parts.using(*family.needs["decode"]):
            assert family.decode(latents).shape == (2, 3, height, width)
        with family.parts.using(*family.needs["encode_prompt"]):
            rows = rows_of(family)
            (empty,) = family.encode_prompt([""], negative=True)
        assert len(rows) == len(TEXTS) and {*empty, "guidance"} == set(rows[0])
        assert family.encode_condition([], latent_shape[1:]) == {}
        with family.parts.using(*family.needs["predict"]):
            guess = family.predict(noise_like(family), TIMES, collate(rows))
        assert guess.shape == latent_shape and guess.isfinite().all()
        assert guess.abs().mean() > 1e-3, "the tiny network answers 0 to everything"


def check_encoders(subject: Subject, family: Family) -> None:
    """Latents and conditions are those of the diffusers pipeline."""
    height, width = sizes(family)
    pixels = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with loaded(family), torch.no_grad():
        assert_near(family.encode_image(pixels), subject.case.encode_image(subject.pipeline, pixels), "encode_image")
        cond = collate(family.encode_prompt(list(TEXTS)))
    wanted = subject.case.encode_prompt(subject.pipeline, list(TEXTS))
    assert set(wanted) == set(cond.parts)
    for name, tensor in wanted.items():
        assert_near(cond[name], tensor, f"condition {name}")


def check_parity(subject: Subject, family: Family) -> None:
    """Sampling through `predict` gives the latents and the picture of the diffusers pipeline."""
    with loaded(family), torch.no_grad():
        latents = subject.render(family)
        assert_near(latents, subject.run_pipeline(subject.pipeline, family, "latent"), "latents")
        image = (family.decode(latents) / 2 + 0.5).clamp(0, 1)
        assert image.std() > 0.02, "a flat picture proves nothing"
        assert_near(image, subject.run_pipeline(subject.pipeline, family, "pt"), "picture")


def check_inputs_matter(subject: Subject, family: Family) -> None:
    """Prompt, time and guidance change the prediction."""
    noisy = noise_like(family, 1)
    with loaded(family), torch.no_grad():
        one, other = (collate([row]) for row in rows_of(family))
        t = TIMES[:1]
        base = family.predict(noisy, t, one)
        for name in one.parts:
            if name != "guidance":
                assert_differs(base, family.predict(noisy, t, one.plus(**{name: other[name]})), f"prompt ({name})")
        assert_differs(base, family.predict(noisy, t + 0.25, one), "time")
        if family.facts.guidance == "cfg":
            assert_differs(base, family.guide(base, family.predict(noisy, t, other), 3.0, t), "guidance scale")
        elif subject.case.takes_guidance:
            assert_differs(base, family.predict(noisy, t, one.plus(guidance=torch.tensor([3.5]))), "guidance")


def check_rows(family: Family, folder: Path) -> None:
    """Captions of two lengths that went through the cache as one batch predict what each predicts alone."""
    noisy = noise_like(family)
    with loaded(family), torch.no_grad():
        rows = rows_of(family)
        alone = [family.predict(noisy[i : i + 1], TIMES[i : i + 1], collate([row])) for i, row in enumerate(rows)]
        cache = RowCache(folder)
        for text, row in zip(TEXTS, rows, strict=True):
            cache.put(text, row)
        cache.flush()
        stored = RowCache(folder)
        together = family.predict(noisy, TIMES, collate([stored.get(text) for text in TEXTS]))
    assert_near(together, torch.cat(alone), "a batch")


def trained_lora(family: Family, rank: int, alpha: float, network: type[LoraNetwork] = LoraNetwork) -> LoraNetwork:
    """A LoRA on the loaded denoiser, with noise where training would have left something."""
    trainable = family.facts.trainables[0]
    lora = network(family.denoiser, trainable, rank, alpha)
    rng = torch.Generator().manual_seed(1)
    for param in lora.params.values():
        param.data.normal_(std=0.1, generator=rng)
    return lora


def loss_of(family: Family, rows: list[Row]) -> Tensor:
    """The training loss of a fixed batch."""
    u, noise = draw([3, 4], noise_like(family).shape[1:])
    batch = Batch(noise_like(family, seed=5), collate(rows), torch.ones(2), u, noise)
    return step_loss(family, batch, NoisePath.of(family.facts), Times())


def check_fresh_lora(family: Family) -> None:
    """A LoRA that was not trained changes nothing, and the loss reaches every one of its weights."""
    with loaded(family):
        rows = rows_of(family)
        with torch.no_grad():
            before = family.predict(noise_like(family), TIMES, collate(rows))
            lora = LoraNetwork(family.denoiser, family.facts.trainables[0], rank=4, alpha=4)
            assert_near(family.predict(noise_like(family), TIMES, collate(rows)), before, "a fresh LoRA", 1e-6)
        for name, param in lora.params.items():
            if "lora_B" in name:
                param.data.normal_(std=0.1)
        loss_of(family, rows).backward()
        dead = [name for name, param in lora.params.items() if param.grad is None or not param.grad.any()]
        assert not dead, f"{len(dead)} of {len(lora.params)} LoRA weights get no gradient: {dead[:4]}"
        frozen = {name for name, param in family.denoiser.named_parameters() if param.grad is not None}
        assert frozen == set(lora.params), "only the LoRA is trained"


def check_lora_file(
    subject: Subject, family: Family, file: Path, alpha: float, network: type[LoraNetwork] = LoraNetwork
) -> None:
    """The written LoRA loads in diffusers without a complaint and makes the picture that we make with it."""
    pipeline = subject.load_pipeline()
    with loaded(family), torch.no_grad():
        base = subject.render(family)
        lora = trained_lora(family, 4, alpha, network)
        lora.write(file, torch.float32, lora.header)
        ours = subject.render(family)
    assert_differs(base, ours, "the LoRA")
    with complaints("diffusers", "peft", "transformers") as found:
        pipeline.load_lora_weights(file)
    # diffusers says this of every file without a text encoder's LoRA, its own included
    found = [text for text in found if "associated to CLIPTextModel" not in text]
    assert not found, found
    assert_near(subject.run_pipeline(pipeline, family, "latent"), ours, "latents with the LoRA in diffusers")


def check_checkpointing(build: Callable[[bool], Family]) -> None:
    """`build(checkpointing)`: recomputing activations changes no gradient."""
    gradients: list[list[Tensor]] = []
    for checkpointing in (False, True):
        with loaded(build(checkpointing)) as family:
            flags = {getattr(module, "gradient_checkpointing", False) for module in family.denoiser.modules()}
            assert (True in flags) == checkpointing
            lora = trained_lora(family, 4, 4)
            family.denoiser.train()
            loss_of(family, rows_of(family)).backward()
            gradients.append([param.grad for param in lora.params.values() if param.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    size = max(gradient.abs().max().item() for gradient in gradients[0])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, kept, rtol=1e-4, atol=1e-6 * size)


def check_bf16(subject: Subject, wide: Family, narrow: Family) -> None:
    """bf16 weights predict nearly what fp32 weights do."""
    with loaded(wide), torch.no_grad():
        rows = rows_of(wide)
        wanted = wide.predict(noise_like(wide), TIMES, collate(rows))
    context = Context(subject.context.device, torch.bfloat16, seed=42)
    with loaded(narrow), torch.no_grad(), context.autocast():
        assert next(narrow.denoiser.parameters()).dtype == torch.bfloat16
        found = narrow.predict(noise_like(narrow), TIMES, collate(rows)).float()
    difference, size = (found - wanted).abs().max().item(), wanted.abs().mean().item()
    assert 0 < difference < 0.2 * size, f"bf16 is off by {difference / size:.2f} of the mean"


class Oracle:
    """A family whose network knows the answer, so that only schedule, time, target and sign are left."""

    def __init__(self, family: Family, path: NoisePath, x: Tensor, e: Tensor) -> None:
        self.family, self.path, self.x, self.e = family, path, x, e
        self.worst = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.family, name)

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """The answer; remembers how far `noisy` is from the path."""
        self.worst = max(self.worst, (noisy - self.path.noisy(self.x, self.e, t)).abs().max().item())
        return self.path.wanted(self.x, self.e, t)


def check_oracle(family: Family, path: NoisePath, tolerance: float = 1e-6) -> None:
    """With a network that answers right, sampling walks the path of training and ends at the data."""
    x, e = noise_like(family, 1, seed=1), noise_like(family, 1, seed=2)
    oracle = Oracle(family, path, x, e)
    scheduler = make_scheduler(family.facts)
    found = sample(oracle, scheduler, e, Conditions({}), steps=6)  # type: ignore[arg-type]
    assert oracle.worst <= tolerance * max(1.0, e.abs().max().item()), f"inputs are off the path by {oracle.worst:.2e}"
    assert_near(found, x, "the oracle's picture", 2 * tolerance)
