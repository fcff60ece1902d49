"""Pictures during training: before the first step, every N steps, at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from toolkit.context import Context
from toolkit.models.conditions import Row
from toolkit.models.family import Family
from toolkit.sampling.contact_sheet import write_contact_sheet
from toolkit.sampling.picture_files import save_picture
from toolkit.sampling.prompts import SamplePrompt
from toolkit.sampling.render import decode, groups, render
from toolkit.training.hooks import averaged
from toolkit.training.state import TrainState


class SamplePictures:
    """Makes the same prompts with the same noise at every call, so that steps can be compared."""

    def __init__(
        self,
        family: Family,
        context: Context,
        prompts: Sequence[SamplePrompt],
        positive: Mapping[str, Row],
        negative: Mapping[str, Row],
        folder: Path,
        ext: str,
        every: int,
        start_step: int,
        total: int,
        tell: Callable[[int, list[Path]], None],
        title: str = "",
    ) -> None:
        self.family, self.context, self.prompts = family, context, prompts
        self.positive, self.negative, self.folder, self.ext = positive, negative, folder, ext
        self.every, self.start_step, self.total, self.tell, self.title = every, start_step, total, tell, title
        self.sheet: Path | None = None

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Make pictures when they are due; the end of the run makes its own."""
        if self.every and state.step % self.every == 0 and self.start_step <= state.step < self.total:
            self.make(state)

    @torch.no_grad()
    def make(self, state: TrainState) -> list[Path]:
        """Make, save and lay out all pictures."""
        denoiser = self.family.denoiser
        was_training = denoiser.training
        denoiser.eval()
        latents: dict[int, Tensor] = {}
        with averaged(state):
            for indices in groups(self.prompts):
                chosen = [self.prompts[index] for index in indices]
                with state.network.scaled(chosen[0].network_multiplier):
                    made = render(self.family, self.context, chosen, self.positive, self.negative)
                latents.update(zip(indices, made, strict=True))
        denoiser.train(was_training)
        with self.family.parts.using(*self.family.needs["decode"]):
            pictures = decode(self.family, [latents[index] for index in range(len(self.prompts))])
        paths = [
            save_picture(image, self.folder, state.step, index, len(self.prompts), self.ext, asdict(prompt))
            for index, (image, prompt) in enumerate(zip(pictures, self.prompts, strict=True))
        ]
        self.sheet = write_contact_sheet(self.folder, self.title)
        self.tell(state.step, paths)
        return paths
