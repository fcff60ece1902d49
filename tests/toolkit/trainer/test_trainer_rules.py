"""Every key about times, loss and noise trains, and each one of them changes the loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from extensions_built_in.flux.config import Flux
from toolkit.config.section import state_of
from toolkit.config.sections.dataset import DatasetSection
from toolkit.config.sections.objective import ObjectiveKeys
from toolkit.config.sections.train import TrainSection
from toolkit.context import Context
from toolkit.data.cache.rows import RowCache
from toolkit.data.datasets import read_datasets
from toolkit.data.loader import Position
from toolkit.models.family import Facts
from toolkit.trainer.noise_rules import make_draws
from toolkit.trainer.rules import make_objective
from toolkit.training.batch import Batch
from toolkit.training.feed import Feed
from toolkit.training.objective import Objective
from toolkit.training.path import Path as NoisePath
from toolkit.training.step import step_losses

ALONE: dict[str, Any] = {
    "timestep_type": [
        "linear", "weighted", "weighted2", "shift", "flux_shift", "lumina2_shift", "lognorm_blend", "next_sample",
        "one_step", "two_step", "four_step", "eight_step",
    ],
    "content_or_style": ["content", "style"],
    "content_or_style_reg": ["content"],
    "min_denoising_steps": [500],
    "max_denoising_steps": [400],
    "linear_timesteps": [True],
    "linear_timesteps2": [True],
    "loss_type": ["mae", "pseudo_huber", "huber", "wavelet", "stepped"],
    "loss_target": ["source"],
    "t0_loss_target": [True],
    "do_fft_loss": [True],
    "min_snr_gamma": [5],
    "snr_gamma": [5],
    "max_loss": [0.4],
    "noise_offset": [0.1],
    "dynamic_noise_offset": [True],
    "multires_noise_iterations": [6],
    "noise_multiplier": [1.1],
    "target_noise_multiplier": [1.1],
    "random_noise_multiplier": [0.2],
    "random_noise_shift": [0.2],
    "noisy_latent_multiplier": [0.9],
    "latent_multiplier": [0.9],
    "adaptive_scaling_factor": [True],
    "standardize_latents": [True],
    "do_signal_correction_noise": [True],
    "do_batch_noise_correction": [True],
    "do_signal_amplification": [True],
    "optimal_noise_pairing_samples": [4],
    "force_consistent_noise": [True],
    "blended_blur_noise": [True],
    "match_noise_norm": [True],
    "pred_scaler": [1.1],
    "target_norm_std": [1.0],
}  # fmt: skip
"""Keys that do something by themselves, and values to try."""
BESIDE: dict[str, tuple[Any, dict[str, Any]]] = {
    "next_sample_timesteps": (4, {"timestep_type": "next_sample"}),
    "huber_c": (0.5, {"loss_type": "pseudo_huber"}),
    "t0_velocity_equiv_weight": (True, {"t0_loss_target": True}),
    "do_fft_velocity_equiv_weight": (True, {"do_fft_loss": True}),
    "multires_noise_discount": (0.8, {"multires_noise_iterations": 6}),
    "signal_correction_noise_scale": (0.5, {"do_signal_correction_noise": True}),
    "batch_noise_correction_scale": (0.5, {"do_batch_noise_correction": True}),
    "signal_amplification_strength": (1.0, {"do_signal_amplification": True}),
    "target_norm_std_value": (0.3, {"target_norm_std": 1.0}),
}
"""Keys that change what another key does."""
ELSEWHERE = {
    "noise_scheduler",
    "switch_boundary_every",
    "bypass_guidance_embedding",
    "reg_weight",
    "do_prior_divergence",
}
"""Keys of the same section that are no part of the objective's rules, and tested where they are used."""


class Bench:
    """The tiny FLUX, whose last layer is trained on a few pictures."""

    def __init__(self, feed: Feed) -> None:
        self.feed, self.family = feed, feed.family
        denoiser = self.family.parts["transformer"].requires_grad_(False)
        self.layer = denoiser.proj_out.requires_grad_(True)
        self.start = {name: value.clone() for name, value in self.layer.state_dict().items()}

    def train(self, **options: Any) -> list[float]:
        """The losses of two steps: one of a training batch, one of a regularization batch."""
        train = TrainSection.model_validate({"batch_size": 4, **options})
        objective = make_objective(train, self.family.facts)
        self.feed.assembly.draws = make_draws(train)
        self.layer.load_state_dict(self.start)
        optimizer = torch.optim.SGD(self.layer.parameters(), lr=0.01)
        found = []
        with ExitStack() as stack:
            # not the first epoch, whose noise is the one that lasts
            batches = self.feed.batches(stack, Position(1, 0), 0, 2)
            for _ in range(2):
                (loss,) = step_losses(self.family, next(batches)[1], objective)
                loss.backward()
                assert all(param.grad is not None and param.grad.isfinite().all() for param in self.layer.parameters())
                optimizer.step()
                optimizer.zero_grad()
                found.append(loss.item())
        return found


@pytest.fixture(scope="module")
def bench(tiny_flux: Path, shapes_folder: Path, cpu: Context) -> Iterator[Bench]:
    model = Flux.model_validate({"arch": "flux", "name_or_path": str(tiny_flux)})
    family = model.build(cpu, checkpointing=False, bypass_guidance=False)
    sections = [{"folder_path": str(shapes_folder), "resolution": 32, "is_reg": is_reg} for is_reg in (False, True)]
    data = read_datasets([DatasetSection.model_validate(each) for each in sections], family.facts.multiple, 4, None)
    feed = Feed(family, cpu, data, RowCache(), RowCache(), True, tell=lambda line: None)
    feed.encode(lambda title, total: nullcontext(lambda count: None))
    with family.parts.using("transformer"):
        yield Bench(feed)


def test_each_key_trains_and_changes_the_loss(bench: Bench) -> None:
    default = bench.train()
    assert bench.train() == default
    for key, values in ALONE.items():
        for value in values:
            losses = bench.train(**{key: value})
            assert all(0 < loss < 1000 for loss in losses), (key, value, losses)
            is_same = [abs(a - b) < 1e-5 * b for a, b in zip(losses, default, strict=True)]
            # each of the two concerns one kind of picture only
            wanted = {"content_or_style_reg": [True, False]}.get(key, [False, False])
            if key == "dynamic_noise_offset":
                is_same, wanted = is_same[:1], [False]
            assert is_same == wanted, (key, value, losses, default)


def test_keys_beside_others_change_the_loss_too(bench: Bench) -> None:
    for key, (value, others) in BESIDE.items():
        without, losses = bench.train(**others), bench.train(**others, **{key: value})
        assert all(0 < loss < 1000 for loss in losses), (key, losses)
        assert abs(losses[0] - without[0]) > 1e-5 * without[0], (key, losses, without)


def test_names_of_the_same_thing_give_the_same_loss(bench: Bench) -> None:
    same: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"loss_type": "huber"}, {"loss_type": "pseudo_huber"}),
        ({"loss_target": "source"}, {"t0_loss_target": True}),
        ({"linear_timesteps": True}, {"timestep_type": "weighted"}),
        ({"linear_timesteps2": True}, {"timestep_type": "weighted2"}),
        ({"min_snr_gamma": 0, "snr_gamma": 0, "multires_noise_iterations": 0, "target_norm_std": 0}, {}),
    ]
    for one, other in same:
        assert bench.train(**one) == bench.train(**other), one


def test_random_numbers_do_not_depend_on_threads_or_where_a_run_was_stopped(bench: Bench) -> None:
    everything = {key: values[0] for key, values in ALONE.items() if "noise" in key and key != "force_consistent_noise"}
    bench.feed.assembly.draws = make_draws(TrainSection.model_validate(everything))

    def taken(start: Position, num_workers: int, count: int) -> list[tuple[Position, Batch]]:
        with ExitStack() as stack:
            batches = bench.feed.batches(stack, start, num_workers, 2)
            return [next(batches) for _ in range(count)]

    alone, threads = taken(Position(0, 0), 0, 4), taken(Position(0, 0), 2, 4)
    resumed = taken(alone[1][0], 0, 2)
    for (_, one), (_, other) in zip([*alone, *alone[2:]], [*threads, *resumed], strict=True):
        assert one.draws.keys() == {"candidates", "offset", "signal", "neighbor", "shift", "factor", "blur"}
        assert all(torch.equal(numbers, other.draws[name]) for name, numbers in one.draws.items())
        assert torch.equal(one.noise, other.noise) and torch.equal(one.u, other.u)


def test_no_working_key_is_forgotten() -> None:
    working = {key for key, field in ObjectiveKeys.model_fields.items() if state_of(field) == "works"}
    assert working == {*ALONE, *BESIDE, *ELSEWHERE}


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
def test_the_defaults_are_the_plain_objective(prediction: str) -> None:
    facts = Facts(channels=4, stride=8, multiple=16, base_model="x", prediction=prediction)
    found, plain = make_objective(TrainSection(), facts), Objective(NoisePath.of(facts))
    for name in ("prepare", "noise", "adjust", "target", "guess", "distance", "weight", "max_loss", "terms"):
        assert getattr(found, name) is getattr(plain, name) or getattr(found, name) == getattr(plain, name), name
    assert found.times.kind == ("sigmoid" if prediction == "flow" else "linear")


def test_amplification_is_for_flow_matching() -> None:
    facts = Facts(channels=4, stride=8, multiple=16, base_model="x", prediction="epsilon")
    with pytest.raises(ValueError, match="do_signal_amplification: only for models that were trained by flow"):
        make_objective(TrainSection.model_validate({"do_signal_amplification": True}), facts)
