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
from toolkit.networks.shared import is_shared
from toolkit.sampling.contact_sheet import write_contact_sheet
from toolkit.sampling.picture_files import is_of, list_pictures, save_animation, save_picture
from toolkit.sampling.prompts import SamplePrompt
from toolkit.sampling.render import Frames, decode, render_all
from toolkit.sampling.request import Request
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
        if self.is_due(state.step):
            self.make(state)

    def is_due(self, step: int) -> bool:
        """Whether a step has pictures; the last one has those of the end of the run."""
        return bool(self.every) and step % self.every == 0 and self.start_step <= step < self.total

    def is_missing(self, step: int) -> bool:
        """Whether a step lacks pictures that were due: a run was killed between its save and its pictures."""
        made = {picture.index for picture in list_pictures(self.folder) if picture.step == step}
        # the ranks look before any of them makes one, and go by what the first has seen
        return self.context.gather(step > 0 and self.is_due(step) and len(made) < len(self.prompts))[0]

    def make_last(self, state: TrainState, first: int) -> None:
        """The pictures of the end of a run that went on from the step `first`, unless that was its end."""
        if state.step > first or not self.context.of_first(lambda: self.are_there(state.step)):
            self.make(state)
        elif self.context.is_first:
            self.sheet = write_contact_sheet(self.folder, self.title)

    def are_there(self, step: int) -> bool:
        """Whether a step has the pictures of these prompts."""
        made = {picture.index: picture.path for picture in list_pictures(self.folder) if picture.step == step}
        facts = [{**asdict(prompt), "step": step, "index": index} for index, prompt in enumerate(self.prompts)]
        return all(index in made and is_of(made[index], fact) for index, fact in enumerate(facts))

    @torch.no_grad()
    def make(self, state: TrainState) -> list[Path]:
        """Make, save and lay out all pictures. Ranks share the prompts out, unless they share the weights out."""
        is_alone = self.context.world == 1 or is_shared(state.params[0])
        own = range(len(self.prompts)) if is_alone else range(self.context.rank, len(self.prompts), self.context.world)
        made = self._make(state, own) if own else {}
        if not is_alone:
            made = {index: path for part in self.context.gather(made) for index, path in part.items()}
        paths = [path for _, path in sorted(made.items())]
        if is_alone or self.context.is_first:
            self.sheet = write_contact_sheet(self.folder, self.title)
            self.tell(state.step, paths)
        return paths

    def _make(self, state: TrainState, indices: Sequence[int]) -> dict[int, Path]:
        """Make and save the pictures of some prompts."""
        with resting(self.family, state), self.around():
            requests = [self._request(state, self.prompts[index]) for index in indices]
            latents = render_all(self.family, self.context, requests, state.network.scaled, self.sampler)
        with self.family.parts.using(*self.family.needs["decode"]):
            made = decode(self.family, latents)
        return {index: self._save(frames, state.step, index) for index, frames in zip(indices, made, strict=True)}

    def _request(self, state: TrainState, prompt: SamplePrompt) -> Request:
        """The request of a prompt, which a trained text encoder reads with the strength that the prompt asks for."""
        with state.network.scaled(prompt.network_multiplier):
            return self.request_of(prompt)

    def _save(self, frames: Frames, step: int, index: int) -> Path:
        """Write a picture, or a video as an animated webp with an mp4 beside it; returns the former."""
        prompt, count = self.prompts[index], len(self.prompts)
        facts = asdict(prompt)
        if len(frames) == 1:
            return save_picture(frames[0], self.folder, step, index, count, self.ext, facts)
        path = save_animation(frames, prompt.fps, self.folder, step, index, count, facts)
        save_mp4(frames, prompt.fps, path.with_suffix(".mp4"), facts)
        return path
