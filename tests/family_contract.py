"""The contract test of a model family, as functions: each raises AssertionError when its promise is broken.

`tests/extensions_built_in/test_families.py` runs them on every family; the tests of a family run them on sabotaged
versions of it, to show that they notice. Shapes: toolkit/shapes.md.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from family_subject import FPS, NEGATIVE, Subject, loaded
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from extensions_built_in.networks.lora import LoraNetwork
from jobs import run_job
from toolkit.context import Context
from toolkit.data.cache.rows import RowCache, key_for
from toolkit.models.conditions import Conditions, Row, collate, hold
from toolkit.models.family import Family
from toolkit.networks.full import FullWeights
from toolkit.sampling.sample import sample
from toolkit.sampling.schedulers import make_scheduler
from toolkit.sampling.video_files import save_mp4
from toolkit.training.batch import Batch
from toolkit.training.path import Path as NoisePath
from toolkit.training.step import step_loss
from toolkit.training.times import Times

TIMES = torch.tensor([0.5, 0.25], dtype=torch.float64)
FAR_AND_NEAR = torch.tensor([0.05, 0.6], dtype=torch.float64)
"""Uniform numbers that uniform times turn into t = 0.95 and 0.4: on both sides of every pair of experts."""


def assert_near(found: Tensor, wanted: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Equal but for rounding: the largest difference is at most `tolerance` x max(1, mean size)."""
    assert found.shape == wanted.shape, f"{what}: {tuple(found.shape)}, not {tuple(wanted.shape)}"
    if not wanted.numel():
        return
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


def skip_if_impossible(subject: Subject, check: str) -> None:
    """Leave a check out for the reason that the case gives."""
    if check in subject.case.skips:
        pytest.skip(subject.case.skips[check])


# -- the promises -----------------------------------------------------------------------------------------------------


def check_shapes(subject: Subject, family: Family) -> None:
    """Every verb runs with just the parts that it says it needs, and keeps to the documented shapes."""
    facts, shape = family.facts, (2, *subject.shape(family))
    pixels = subject.pixels(family)
    with torch.no_grad():
        with family.parts.using(*family.needs["encode_image"]):
            latents = family.encode_image(pixels)
            if facts.frame_stride:
                still = family.encode_image(pixels[:, :, 0])
                assert still.shape == (2, facts.channels, 1, *shape[3:])
        assert latents.shape == shape and latents.dtype == torch.float32 and latents.isfinite().all()
        with family.parts.using(*family.needs["decode"]):
            assert family.decode(latents).shape == pixels.shape
        images = [subject.pictures(family)] if facts.prompt_images else None
        with family.parts.using(*family.needs["encode_prompt"]):
            (row,) = family.encode_prompt([subject.case.texts[0]], images=images)
            (empty,) = family.encode_prompt([""], images=images, negative=True)
        assert set(empty) == set(row)
        with family.parts.using(*family.needs.get("encode_condition", ())):
            condition = family.encode_condition(subject.pictures(family), shape[1:])
        assert bool(condition) == bool(subject.case.images) or facts.prompt_images
        with family.parts.using(*family.needs["predict"]):
            guess = family.predict(subject.noise(family, 1), TIMES[:1], collate([{**row, **condition}]))
        assert guess.shape == (1, *shape[1:]) and guess.isfinite().all()
        assert guess.abs().mean() > 1e-3, "the tiny network answers 0 to everything"


def check_encoders(subject: Subject, family: Family) -> None:
    """Latents and conditions are those of the diffusers pipeline."""
    case = subject.case
    with loaded(family), torch.no_grad():
        if case.encode_image is not None:
            pixels = subject.pixels(family)
            assert_near(family.encode_image(pixels), case.encode_image(subject.pipeline, pixels), "encode_image")
        else:
            assert case.skips["encode_image"]
        if case.encode_prompt is None:
            assert case.skips["encode_prompt"]
            return
        wanted = case.encode_prompt(subject.pipeline, list(case.texts))
        for index, row in enumerate(family.encode_prompt(list(case.texts))):
            assert set(wanted) == set(row)
            for name, tensors in wanted.items():
                assert_near(row[name].float(), tensors[index].float(), f"condition {name} of text {index}")


def check_parity(subject: Subject, family: Family) -> None:
    """Sampling through `predict` gives the latents and the picture of the diffusers pipeline."""
    skip_if_impossible(subject, "parity")
    tolerance = subject.case.tolerances.get("parity", 1e-5)
    with loaded(family), torch.no_grad():
        latents = subject.render(family)
        wanted = subject.run_pipeline(subject.pipeline, family, "latent")
        assert_near(latents, wanted, "latents", tolerance)
        image = (family.decode(latents) / 2 + 0.5).clamp(0, 1)
        assert image.std() > 0.02, "a flat picture proves nothing"
        assert_near(image, subject.run_pipeline(subject.pipeline, family, "pt"), "picture", tolerance)


def check_inputs_matter(subject: Subject, family: Family) -> None:
    """Prompt, references, numbers, time and guidance change the prediction."""
    noisy, t = subject.noise(family, 1), TIMES[:1]
    with loaded(family), torch.no_grad():
        one_row, other_row = subject.rows(family)
        (negative_row,) = subject.rows(family, [NEGATIVE], negative=True)
        one = collate([one_row])
        base = family.predict(hold(noisy, one), t, one)
        condition = family.encode_condition(subject.pictures(family), subject.shape(family))
        for name in one_row.keys() - condition.keys() - subject.case.numbers.keys():
            changed = collate([{**one_row, name: other_row[name]}])
            assert_differs(base, family.predict(hold(noisy, one), t, changed), f"prompt ({name})")
        if subject.case.images:
            (changed_row,) = subject.rows(family, subject.case.texts[:1], pictures_seed=1)
            other = collate([changed_row])
            assert_differs(base, family.predict(hold(noisy, other), t, other), "reference")
        for name in family.facts.numbers:
            number = torch.tensor([[9.0, 7.0, 5.0, 3.0, 8.0, 6.0]]) if name == "size" else torch.tensor([5.0])
            assert_differs(base, family.predict(hold(noisy, one), t, one.plus(**{name: number})), name)
        assert_differs(base, family.predict(hold(noisy, one), t + 0.25, one), "time")
        if family.facts.guidance == "cfg":
            no = family.predict(noisy, t, collate([negative_row]))
            assert_differs(base, family.guide(base, no, 3.0, t), "guidance scale")
        elif subject.case.takes_guidance:
            guided = family.predict(noisy, t, one.plus(guidance=torch.tensor([3.5])))
            assert_differs(base, guided, "guidance")


def check_rows(subject: Subject, family: Family, folder: Path) -> None:
    """Captions of two lengths that went through the cache as one batch predict what each predicts alone."""
    noisy = subject.noise(family)
    with loaded(family), torch.no_grad():
        rows = subject.rows(family)
        alone = [family.predict(noisy[i : i + 1], TIMES[i : i + 1], collate([row])) for i, row in enumerate(rows)]
        cache = RowCache(folder)
        for text, row in zip(subject.case.texts, rows, strict=True):
            cache.put(key_for(text=text), row)
        cache.flush()
        stored = RowCache(folder)
        together = family.predict(
            noisy, TIMES, collate([stored.get(key_for(text=text)) for text in subject.case.texts])
        )
    assert_near(together, torch.cat(alone), "a batch")


def adapters(family: Family, alpha: float = 4, network: type[LoraNetwork] = LoraNetwork) -> list[LoraNetwork]:
    """A fresh LoRA of rank 4 on every loaded denoiser."""
    return [network(family.parts[trainable.part], trainable, 4, alpha) for trainable in family.facts.denoisers]


def trained(loras: list[LoraNetwork]) -> list[LoraNetwork]:
    """The LoRAs with noise where training would have left something."""
    rng = torch.Generator().manual_seed(1)
    for lora in loras:
        for param in lora.params.values():
            param.data.normal_(std=0.1, generator=rng)
    return loras


def loss_of(subject: Subject, family: Family, rows: list[Row]) -> Tensor:
    """The training loss of a fixed batch."""
    latents, noise = subject.noise(family, seed=5), subject.noise(family, seed=6)
    batch = Batch(latents, collate(rows), torch.ones(2), FAR_AND_NEAR, noise)
    return step_loss(family, batch, NoisePath.of(family.facts), Times("linear"))


def check_fresh_lora(subject: Subject, family: Family) -> None:
    """A LoRA that was not trained changes nothing, and the loss reaches every one of its weights."""
    with loaded(family):
        rows = subject.rows(family)
        noisy = subject.noise(family)
        with torch.no_grad():
            before = family.predict(noisy, TIMES, collate(rows))
            loras = adapters(family)
            assert_near(family.predict(noisy, TIMES, collate(rows)), before, "a fresh LoRA", 1e-6)
        for name, param in [entry for lora in loras for entry in lora.params.items()]:
            if "lora_B" in name:
                param.data.normal_(std=0.1)
        family.denoiser.train()
        loss_of(subject, family, rows).backward()
        grads = [(name, param.grad) for lora in loras for name, param in lora.params.items()]
        dead = [name for name, grad in grads if grad is None or not grad.any()]
        assert not dead, f"{len(dead)} of {len(grads)} LoRA weights get no gradient: {dead[:4]}"
        frozen = [name for name, param in family.denoiser.named_parameters() if param.grad is not None]
        assert len(frozen) == len(grads), "only the LoRA is trained"
        if len(loras) > 1:
            assert_experts_take_turns(family, loras, noisy[:1], collate(rows[:1]))


def assert_experts_take_turns(family: Family, loras: list[LoraNetwork], noisy: Tensor, cond: Conditions) -> None:
    """From one end of an expert's times to the other, the prediction depends on that expert and on no other."""
    params = [list(lora.params.values()) for lora in loras]
    for index, trainable in enumerate(family.facts.denoisers):
        low, high = trainable.times
        for t in (0.99 * low + 0.01 * high, 0.01 * low + 0.99 * high):
            guess = family.predict(hold(noisy, cond), torch.tensor([t], dtype=torch.float64), cond).sum()
            grads = [torch.autograd.grad(guess, one, retain_graph=True, allow_unused=True) for one in params]
            found = [number for number, one in enumerate(grads) if any(grad is not None for grad in one)]
            assert found == [index], f"{trainable.part} answers at {low}..{high}, but at {t:.3f} it is expert {found}"


def check_lora_file(
    subject: Subject, family: Family, folder: Path, alpha: float, network: type[LoraNetwork] = LoraNetwork
) -> None:
    """The written LoRA loads in diffusers without a complaint and makes the picture that we make with it."""
    skip_if_impossible(subject, "lora_file")
    pipeline = subject.load_pipeline()
    files = [folder / f"lora{trainable.file}.safetensors" for trainable in family.facts.denoisers]
    with loaded(family), torch.no_grad():
        base = subject.render(family)
        loras = trained(adapters(family, alpha, network))
        for file, lora in zip(files, loras, strict=True):
            lora.write(file, torch.float32, lora.header)
        ours = subject.render(family)
    assert_differs(base, ours, "the LoRA")
    with complaints("diffusers", "peft", "transformers") as found:
        subject.case.load_lora(pipeline, files)
    # diffusers says this of every file without a text encoder's LoRA, its own included
    found = [text for text in found if "found with the prefix='text_encoder" not in text]
    assert not found, found
    theirs = subject.run_pipeline(pipeline, family, "latent")
    assert_near(theirs, ours, "latents with the LoRA in diffusers", subject.case.tolerances.get("lora_file", 1e-5))


def gradients(subject: Subject, family: Family) -> list[Tensor]:
    """Of a trained LoRA on the family, in training mode."""
    with loaded(family):
        loras = trained(adapters(family))
        family.denoiser.train()
        loss_of(subject, family, subject.rows(family)).backward()
    return [param.grad for lora in loras for param in lora.params.values() if param.grad is not None]


def assert_equal_gradients(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Equal but for the order of sums."""
    assert len(found) == len(wanted) > 0
    size = max(gradient.abs().max().item() for gradient in wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * size)


def recomputes(family: Family) -> bool:
    """Whether a part of the loaded denoiser is asked to keep no activations."""
    return any(getattr(module, "gradient_checkpointing", False) for module in family.denoiser.modules())


def check_checkpointing(subject: Subject, checkpointing: Family, plain: Sequence[Tensor]) -> None:
    """Recomputing activations changes no gradient; `plain`: those of a family that keeps them."""
    skip_if_impossible(subject, "checkpointing")
    with loaded(checkpointing):
        assert recomputes(checkpointing)
        assert_equal_gradients(gradients(subject, checkpointing), plain)


def check_offloading(subject: Subject, offloaded: Family, plain: Sequence[Tensor]) -> None:
    """Layers that live in host memory give the same gradients as those on the device, `plain`."""
    skip_if_impossible(subject, "offload")
    assert_equal_gradients(gradients(subject, offloaded), plain)


def check_bf16(subject: Subject, wide: Family, narrow: Family) -> None:
    """bf16 weights predict nearly what fp32 weights do."""
    with loaded(wide), torch.no_grad():
        rows = subject.rows(wide)
        wanted = wide.predict(subject.noise(wide), TIMES, collate(rows))
    context = Context(subject.context.device, torch.bfloat16, seed=42)
    with loaded(narrow), torch.no_grad(), context.autocast():
        # diffusers keeps single tensors of some classes in fp32
        assert torch.bfloat16 in {param.dtype for param in narrow.denoiser.parameters()}
        found = narrow.predict(subject.noise(narrow), TIMES, collate(rows)).float()
    difference, size = (found - wanted).abs().max().item(), wanted.abs().mean().item()
    limit = subject.case.tolerances.get("bf16", 0.2)
    assert 0 < difference < limit * size, f"bf16 is off by {difference / size:.2f} of the mean"


def check_quantized(subject: Subject, wide: Family, quantized: Family) -> None:
    """8-bit weights predict nearly what fp32 weights do, and a LoRA on top gets its gradients."""
    skip_if_impossible(subject, "quantize")
    with loaded(wide), torch.no_grad():
        rows = subject.rows(wide)
        wanted = wide.predict(subject.noise(wide), TIMES, collate(rows))
    with loaded(quantized):
        with torch.no_grad():
            found = quantized.predict(subject.noise(quantized), TIMES, collate(rows))
        learned = gradients(subject, quantized)
    difference, size = (found - wanted).abs().mean().item(), wanted.abs().mean().item()
    assert 0 < difference < 0.1 * size, f"8-bit weights are off by {difference / size:.3f} of the mean"
    assert all(gradient.any() for gradient in learned)


def check_full_weights(
    subject: Subject, family: Family, folder: Path, network: type[FullWeights] = FullWeights
) -> None:
    """A full fine-tune reaches the weights, and its folder opens in diffusers with those weights."""
    skip_if_impossible(subject, "full")
    with loaded(family):
        full = [network(family.parts[trainable.part], trainable.part) for trainable in family.facts.denoisers]
        family.denoiser.train()
        loss_of(subject, family, subject.rows(family)).backward()
        reached = [param.grad is not None and bool(param.grad.any()) for one in full for param in one.params.values()]
        assert sum(reached) > 0.75 * len(reached), f"only {sum(reached)} of {len(reached)} weights get a gradient"
        for one in full:
            for param in one.params.values():
                param.data.add_(0.01)
            one.write(folder, torch.float32, {})
            module = family.parts[one.subfolder]
            load = subject.case.full_class or type(module).from_pretrained
            saved = load(folder / one.subfolder).state_dict()
            for name, tensor in module.state_dict().items():
                torch.testing.assert_close(saved[name], tensor, rtol=0, atol=0)


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


def check_oracle(subject: Subject, family: Family, path: NoisePath, tolerance: float | None = None) -> None:
    """With a network that answers right, sampling walks the path of training and ends at the data."""
    skip_if_impossible(subject, "oracle")
    limit = tolerance or subject.case.tolerances.get("oracle", 1e-6)
    x, e = subject.noise(family, 1, seed=1), subject.noise(family, 1, seed=2)
    oracle = Oracle(family, path, x, e)
    scheduler = make_scheduler(family.facts)
    # where the first step is not quite pure noise, sampling has to begin on the path
    scheduler.set_timesteps(**family.schedule(5, tuple(x.shape)))
    first = scheduler.timesteps[0]
    scaled = scheduler.scale_model_input(torch.ones(1), first) if hasattr(scheduler, "scale_model_input") else 1.0
    begin = path.noisy(x, e, first[None].double() / scheduler.config.num_train_timesteps)
    begin = begin / (scaled * getattr(scheduler, "init_noise_sigma", 1.0))
    found = sample(oracle, scheduler, begin, Conditions({}), steps=5)  # type: ignore[arg-type]
    assert oracle.worst <= limit * max(1.0, e.abs().max().item()), f"inputs are off the path by {oracle.worst:.2e}"
    assert_near(found, x, "the oracle's picture", 2 * limit)


def job_of(subject: Subject, family: Family, folder: Path) -> dict[str, Any]:
    """A config that trains a LoRA for two steps, makes a picture and saves, as a user would write it; and its data."""
    case, facts = subject.case, family.facts
    # the smallest picture that a config may ask for
    height, width = (max(side, 64) for side in subject.sizes(family))
    frames = {"num_frames": case.frames} if case.frames else {}
    dataset = {"folder_path": str(folder / "data"), "resolution": min(height, width), **frames}
    if case.images:
        own_frame = facts.references == "first_frame"
        dataset |= {"do_i2v": True} if own_frame else {"control_path": str(folder / "controls")}
    picture = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    for name in ("data", "controls"):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            (folder / name / f"{number}.txt").write_text("a cat")
            if case.frames > 1 and name == "data":
                save_mp4([picture] * case.frames, FPS, folder / name / f"{number}.mp4", {})
            else:
                picture.save(folder / name / f"{number}.png")
    control = {"ctrl_img": str(folder / "controls" / "0.png")} if case.images else {}
    process = {
        "type": "sd_trainer",
        "training_folder": str(folder / "output"),
        "device": "cpu",
        "model": {"arch": case.arch, "name_or_path": str(subject.folder), **case.model},
        "network": {"type": "lora", "linear": 4},
        "datasets": [dataset],
        "train": {"steps": 2, "lr": 1e-3, "skip_first_sample": True, "dtype": "fp32"},
        "save": {"dtype": "fp32"},
        "sample": {
            "samples": [{"prompt": case.texts[0], **control}],
            "sample_steps": 2,
            "width": width,
            "height": height,
            "guidance_scale": case.guidance,
            **frames,
        },
    }
    return {"job": "extension", "config": {"name": "run", "process": [process]}}


def check_job(subject: Subject, family: Family, folder: Path) -> None:
    """A job writes its LoRA, one file per denoiser, and its pictures."""
    skip_if_impossible(subject, "job")
    run_job(job_of(subject, family, folder))
    results = folder / "output" / "run"
    for trainable in family.facts.denoisers:
        weights = load_file(results / f"run{trainable.file}.safetensors")
        assert weights and all(tensor.isfinite().all() for tensor in weights.values())
        # a fresh LoRA has zeros for half of its tensors
        assert all(tensor.any() for tensor in weights.values()), f"{trainable.part} was not trained"
    pictures = [path for path in (results / "samples").iterdir() if "000000002" in path.name]
    assert any(path.suffix in (".jpg", ".webp") for path in pictures)
    assert any(path.suffix == ".mp4" for path in pictures) == (subject.case.frames > 1)
