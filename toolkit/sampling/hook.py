"""Pictures and videos during training: before the first step, every N steps, at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from toolkit.context import Context
from toolkit.models.family import Family
from toolkit.sampling.contact_sheet import write_contact_sheet
from toolkit.sampling.picture_files import save_animation, save_picture
from toolkit.sampling.prompts import SamplePrompt
from toolkit.sampling.render import Frames, decode, render
from toolkit.sampling.request import Request, groups
from toolkit.sampling.video_files import save_mp4
from toolkit.training.resting import resting
from toolkit.training.state import TrainState


class SamplePictures:
    """Makes the same prompts with the same noise at every call, so that steps can be compared."""

    def __init__(
        self,
        family: Family,
        context: Context,
        prompts: Sequence[SamplePrompt],
        request_of: Callable[[SamplePrompt], Request],
        folder: Path,
        ext: str,
        every: int,
        start_step: int,
        total: int,
        tell: Callable[[int, list[Path]], None],
        title: str = "",
        sampler: str | None = None,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.family, self.context, self.prompts, self.request_of = family, context, prompts, request_of
        self.folder, self.ext, self.title, self.sampler, self.around = folder, ext, title, sampler, around
        self.every, self.start_step, self.total, self.tell = every, start_step, total, tell
        self.sheet: Path | None = None

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Make pictures when they are due; the end of the run makes its own."""
        if self.every and state.step % self.every == 0 and self.start_step <= state.step < self.total:
            self.make(state)

    @torch.no_grad()
    def make(self, state: TrainState) -> list[Path]:
        """Make, save and lay out all pictures."""
        latents: dict[int, Tensor] = {}
        with resting(self.family, state), self.around():
            for strength in dict.fromkeys(prompt.network_multiplier for prompt in self.prompts):
                with state.network.scaled(strength):
                    latents |= self._denoise(strength)
        with self.family.parts.using(*self.family.needs["decode"]):
            made = decode(self.family, [latents[index] for index in range(len(self.prompts))])
        paths = [self._save(frames, state.step, index) for index, frames in enumerate(made)]
        self.sheet = write_contact_sheet(self.folder, self.title)
        self.tell(state.step, paths)
        return paths

    def _denoise(self, strength: float) -> dict[int, Tensor]:
        """Latents by place of the prompts that are made with this strength of the network."""
        places = [index for index, prompt in enumerate(self.prompts) if prompt.network_multiplier == strength]
        requests = [self.request_of(self.prompts[index]) for index in places]
        latents: dict[int, Tensor] = {}
        for group in groups(requests):
            made = render(self.family, self.context, [requests[number] for number in group], self.sampler)
            latents.update(zip((places[number] for number in group), made, strict=True))
        return latents

    def _save(self, frames: Frames, step: int, index: int) -> Path:
        """Write a picture, or a video as an animated webp with an mp4 beside it; returns the former."""
        prompt, count = self.prompts[index], len(self.prompts)
        facts = asdict(prompt)
        if len(frames) == 1:
            return save_picture(frames[0], self.folder, step, index, count, self.ext, facts)
        path = save_animation(frames, prompt.fps, self.folder, step, index, count, facts)
        save_mp4(frames, prompt.fps, path.with_suffix(".mp4"), facts)
        return path
