"""Preservation and guidance in whole runs of the tiny FLUX: what stays, what is split off, what needs a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

LEARNS = {"steps": 12, "batch_size": 3, "lr": 3e-2}
KIND = {"diff_output_preservation": True, "diff_output_preservation_class": "dog"}


def moved(probe: Any, run: Any, *texts: str) -> list[float]:
    """How far the network of a finished run moves the answer to each text."""
    from jobs import get_job
    from toolkit.models.conditions import collate
    from toolkit.trainer.session import open_session

    job = get_job(probe.but(network={"pretrained_lora_path": str(run.final)}).config)
    with open_session(job.processes[0], job) as session, torch.no_grad():
        family = session.family
        with family.parts.using(*family.needs["encode_prompt"]):
            rows = family.encode_prompt(list(texts))
        network = session.load().network
        noisy = torch.randn(8, family.facts.channels, 4, 4, generator=torch.Generator().manual_seed(0))
        t, found = torch.linspace(0.1, 0.9, 8, dtype=torch.float64), []
        for row in rows:
            cond = collate([row] * 8)
            answer = family.predict(noisy, t, cond)
            with network.scaled(0):
                found.append(float((answer - family.predict(noisy, t, cond)).square().mean().sqrt()))
    return found


def ups(run: Any) -> list[Any]:
    """The matrices of a LoRA that begin at zero."""
    return [tensor for name, tensor in run.weights().items() if "lora_B" in name]


def test_each_kind_keeps_what_it_is_for(training: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    plain = training("plain", trigger_word="tok", train=LEARNS).run()
    of_class = training("kind", trigger_word="tok", train={**LEARNS, **KIND}).but(
        train={"diff_output_preservation_multiplier": 20}
    )
    of_class.run()
    assert "5 of 6 captions lack the trigger word 'tok'" in capsys.readouterr().out
    blank = training("blank", trigger_word="tok", train={**LEARNS, "blank_prompt_preservation": True}).but(
        train={"blank_prompt_preservation_multiplier": 20}
    )
    texts = ("dog a red circle", "")
    probes = [training(f"probe-{name}") for name in ("plain", "kind", "blank")]
    before, kind, empty = (
        moved(probe, run, *texts) for probe, run in zip(probes, (plain, of_class, blank.run()), strict=True)
    )
    assert kind[0] < 0.7 * before[0] and empty[1] < 0.7 * before[1]
    assert all(tensor.abs().max() > 1e-3 for run in (of_class, blank) for tensor in ups(run))


def test_pictures_for_the_prior_teach_nothing_and_a_strength_of_zero_neither(
    training: Callable[..., Any], noise_folder: Path
) -> None:
    data = {"folder_path": str(noise_folder), "resolution": 32}
    prior = training("prior", datasets=[{**data, "prior_reg": True}], trigger_word="tok").run()
    off = training("off", datasets=[{**data, "network_weight": 0.0}]).run()
    assert not any(tensor.any() for run in (prior, off) for tensor in ups(run))
    # a loss of 0 all the way: the network is where it should stay
    assert all(row["loss/loss"] == 0 for row in prior.metrics() if "loss/loss" in row)
    both = training("both", datasets=[data, {**data, "is_reg": True, "prior_reg": True, "network_weight": 0.5}]).run()
    assert all(tensor.any() for tensor in ups(both))


@pytest.mark.parametrize(
    "keys",
    [
        {"do_guidance_loss": True, "guidance_loss_target": [2, 4], "guidance_loss_schedule": "sigma"},
        {"do_guidance_loss": True, "do_guidance_loss_cfg_zero": True, "unconditional_prompt": "a cat"},
        {"do_differential_guidance": True, "max_grad_norm": 0},
        {"do_cfg": True, "cfg_scale": 3, "cfg_rescale": 0.5, "negative_prompt": "a dog"},
        {"do_random_cfg": True, "max_cfg_scale": 5},
        {"inverted_mask_prior": True},
        {"do_blank_stabilization": True},
    ],
    ids=lambda keys: "+".join(keys),
)
def test_each_key_changes_what_is_learned(
    training: Callable[..., Any], noise_folder: Path, tmp_path: Path, keys: dict[str, Any]
) -> None:
    for index in range(6):
        with Image.open(noise_folder / f"{index}.png") as picture:
            mask = Image.new("L", picture.size, 0)
            mask.paste(255, (0, 0, picture.width // 2, picture.height))
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / f"{index}.png")
    data = {"folder_path": str(noise_folder), "resolution": 32, "mask_path": str(tmp_path / "masks")}
    options = {"datasets": [{**data, "caption_dropout_rate": 0.4}], "train": {"steps": 3}}
    plain = training("plain", **options).run().weights()
    found = training("keyed", **options).but(train=keys).run().weights()
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in found.items())


def test_recomputing_and_accumulating_change_nothing_and_rounding_little(training: Callable[..., Any]) -> None:
    keys = {**KIND, "steps": 3, "gradient_accumulation": 2}
    plain = training("plain", trigger_word="tok", train=keys).run()
    again = training("again", trigger_word="tok", train={**keys, "gradient_checkpointing": True}).run()
    bf16 = training("bf16", trigger_word="tok", train={**keys, "dtype": "bf16"}).run()
    for name, tensor in plain.weights().items():
        torch.testing.assert_close(again.weights()[name], tensor, atol=1e-6, rtol=1e-4)
    for one, rounded in zip(ups(plain), ups(bf16), strict=True):
        assert torch.nn.functional.cosine_similarity(one.flatten(), rounded.flatten(), dim=0) > 0.9


def test_trained_text_encoders_are_compared_as_they_were(training: Callable[..., Any], tmp_path: Path) -> None:
    from extensions_built_in.stable_diffusion.tiny import save_tiny

    tiny, keys = save_tiny(tmp_path / "sd"), {"train_text_encoder": True, "steps": 2}
    network = {"network_kwargs": {"only_if_contains": ["attn2.to_q", "q_proj"]}}
    options = {"model": {"arch": "sd15", "name_or_path": str(tiny)}, "trigger_word": "tok", "network": network}
    plain = training("plain", **options, train=keys).run().weights()
    kept = training("kept", **options, train={**keys, **KIND}).run().weights()
    guided = training("guided", **options, train={**keys, "do_cfg": True, "cfg_scale": 2}).run().weights()
    encoders = [name for name in plain if "unet" not in name]
    for other in (kept, guided):
        assert encoders and any(not torch.equal(plain[name], other[name]) for name in encoders)


def test_a_stopped_run_draws_the_same_texts_and_scales_again(
    training: Callable[..., Any], signal_at: Any, identical: Any, tmp_path: Path
) -> None:
    from jobs import Stopped

    (tmp_path / "no.txt").write_text("a cat\na dog\n\ntwo, three\n", encoding="utf-8")
    keys = {"do_random_cfg": True, "max_cfg_scale": 4, "negative_prompt": str(tmp_path / "no.txt")}
    options = {"train": {**keys, "max_negative_prompts": 2}, "save": {"dtype": "fp32", "save_every": 2}}
    whole, parts = training("whole", **options).run(), training("parts", **options)
    with signal_at("step 2/4"), pytest.raises(Stopped):
        parts.run()
    assert identical(parts.run().state(), whole.state())
