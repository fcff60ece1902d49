"""The process that captions a folder: list, load, describe batch by batch, write, log. It can be stopped anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from extensions_built_in.captioners.display import Display
from extensions_built_in.captioners.listing import Listing, list_pictures, open_captions
from jobs import Stopped
from toolkit.captioning.captioner import Captioner, Subject
from toolkit.captioning.captions import Captions, UnreadableCaption
from toolkit.captioning.log import FAILED, SHORT, SKIPPED, WRITTEN, CaptionLog
from toolkit.captioning.pictures import opened_ahead
from toolkit.captioning.template import filled, in_one_line, values
from toolkit.config import to_yaml
from toolkit.context import Context, make_context
from toolkit.data.pictures.image import BrokenImage
from toolkit.reporting.failures import RunFailed
from toolkit.reporting.versions import versions
from toolkit.run_folder import RunFolder
from toolkit.training.stop import StopFlag, say_at_once

if TYPE_CHECKING:
    from extensions_built_in.captioners.config import WriteCaptions
    from jobs import Job

NOT_SETTINGS = {"batch_size", "num_workers", "device"}
"""Keys that change nothing about the captions."""


class CaptionProcess:
    """Writes a caption for every picture that needs one."""

    def __init__(self, config: WriteCaptions, job: Job) -> None:
        self.config, self.job, self.section = config, job, config.caption
        self.folder = RunFolder(Path(config.training_folder).expanduser() / (config.name or job.name), job.name)
        self.log = CaptionLog(self.folder.path / "captions.jsonl")
        self.counts: Counter[str] = Counter()
        self.reason = ""

    def run(self) -> None:
        """Do it all; raises `Stopped` after a clean stop by the user."""
        with self.folder.lock(), StopFlag(_say_stopping) as stop:
            self.folder.write_config(to_yaml(self.job, self.config))
            self.folder.write_versions(versions())
            captions = open_captions(self.section)
            settings = self._settings()
            done = self.log.unfinished(settings) if self.section.recaption else set()
            listing = list_pictures(self.section, captions, frozenset(done))
            print(*listing.describe(), sep="\n", flush=True)
            self.log.start(settings)
            self.log.add(self._entry(listing, path, SKIPPED, reason=why) for path, _, why in listing.skipped)
            if listing.todo:
                self._caption(listing, captions, stop)
            captions.close()
            if stop.requested and self.counts.total() < len(listing.todo):
                raise Stopped(f"{self._summary()}; the same command continues with the others")
            self.log.end()
            print(self._summary(), flush=True)
            if listing.todo and not self.counts[WRITTEN]:
                raise ValueError(f"no caption could be written ({self._summary()}); the last reason: {self.reason}")

    def _caption(self, listing: Listing, captions: Captions, stop: StopFlag) -> None:
        section = self.section
        captioner = section.build(self._context())
        with Display(len(listing.todo)) as display:
            for batch in self._batches(listing, display, stop):
                begin = time.monotonic()
                texts = self._texts(captioner, [self._subject(listing, captions, *pair) for pair in batch])
                seconds = (time.monotonic() - begin) / len(batch)
                self._write(listing, captions, display, [path for path, _ in batch], texts, seconds)
                display.advance(len(batch))
                if stop.requested:
                    return

    def _batches(self, listing: Listing, display: Display, stop: StopFlag) -> Iterator[list[tuple[Path, Image.Image]]]:
        """Pictures that could be opened; the others are named and logged."""
        section = self.section
        batch: list[tuple[Path, Image.Image]] = []
        ahead = max(2 * section.batch_size, section.num_workers)
        for path, image in opened_ahead(listing.todo, section.max_res, section.num_workers, ahead):
            if stop.requested:
                return
            if isinstance(image, BrokenImage):
                self._note(listing, display, path, FAILED, image.reason, 0.0)
                display.advance(1)
                continue
            batch.append((path, image))
            if len(batch) == section.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _subject(self, listing: Listing, captions: Captions, path: Path, image: Image.Image) -> Subject:
        """What the model is shown and asked."""
        there = ""
        # with recaption, one that cannot be read counts as none
        with suppress(UnreadableCaption):
            there = captions.read(path)
        known = values(path, there, self.section.trigger_word)
        seed = int.from_bytes(hashlib.blake2b(os.fsencode(listing.name(path)), digest_size=6).digest(), "little")
        return Subject(image, filled(self.section.prompt, known), seed)

    def _texts(self, captioner: Captioner, subjects: list[Subject]) -> list[str | ValueError]:
        """The texts, those that are too short asked for once more; or why there is none."""
        texts = _described(captioner, subjects, 1)
        least = self.section.min_words
        short = [index for index, text in enumerate(texts) if isinstance(text, str) and _num_words(text) < least]
        if short:
            again = _described(captioner, [subjects[index] for index in short], max(least, 2))
            for index, text in zip(short, again, strict=True):
                texts[index] = text
        return texts

    def _write(
        self,
        listing: Listing,
        captions: Captions,
        display: Display,
        paths: Sequence[Path],
        texts: Sequence[str | ValueError],
        seconds: float,
    ) -> None:
        """Put the texts of a batch on the disk, then into the log."""
        section, made = self.section, {}
        for path, text in zip(paths, texts, strict=True):
            if isinstance(text, ValueError):
                self._note(listing, display, path, FAILED, in_one_line(str(text)), seconds)
            elif (count := _num_words(text)) < section.min_words:
                reason = f"only {count} of {section.min_words} words: {in_one_line(text)!r}"
                self._note(listing, display, path, SHORT, reason, seconds)
            elif not section.recaption and _is_there(captions, path):
                self._note(listing, display, path, SKIPPED, "got a caption while this ran", seconds)
            else:
                known = values(path, "", section.trigger_word)
                made[path] = filled(section.prefix, known) + in_one_line(text) + filled(section.suffix, known)
        captions.write(made)
        self.counts[WRITTEN] += len(made)
        self.log.add(self._entry(listing, path, WRITTEN, seconds, caption=text) for path, text in made.items())

    def _note(self, listing: Listing, display: Display, path: Path, status: str, reason: str, seconds: float) -> None:
        """Say and log what kept a picture from its caption."""
        self.counts[status] += 1
        self.reason = f"{path}: {reason}"
        display.note(f"{path}: {reason}; {'left alone' if status == SKIPPED else 'no caption written'}")
        self.log.add([self._entry(listing, path, status, seconds, reason=reason)])

    def _entry(self, listing: Listing, path: Path, status: str, seconds: float = 0.0, **more: str) -> dict[str, Any]:
        return {"file": listing.name(path), "status": status, "seconds": round(seconds, 3), **more}

    def _context(self) -> Context:
        section = self.section
        context = make_context(section.device or self.config.device, section.dtype or "fp32", 0)
        if section.dtype is None and context.device.type != "cpu":
            return replace(context, dtype=torch.bfloat16)
        return context

    def _settings(self) -> dict[str, str]:
        """What a run that replaces captions has to share with the one that it continues."""
        said = self.section.model_dump(mode="json", exclude=NOT_SETTINGS)
        text = json.dumps({**said, "path_to_caption": str(self.section.location.absolute())}, sort_keys=True)
        return {"type": self.section.type, "hash": hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}

    def _summary(self) -> str:
        counts = {WRITTEN: self.counts[WRITTEN], **self.counts}
        return f"captions: {', '.join(f'{n} {status}' for status, n in counts.items())}; log: {self.log.file}"


def _described(captioner: Captioner, subjects: list[Subject], min_words: int) -> list[str | ValueError]:
    """The texts; where a batch fails because of a picture, each by itself."""
    try:
        texts = list(captioner.describe(subjects, min_words))
    except torch.OutOfMemoryError as error:
        raise RunFailed(
            f"GPU memory ran out with {len(subjects)} pictures at once: lower caption.batch_size, caption.max_res, or "
            "set caption.quantize: true; what is written stays, and the same command continues"
        ) from error
    except ValueError as error:
        if len(subjects) == 1:
            return [error]
        return [found for subject in subjects for found in _described(captioner, [subject], min_words)]
    if len(texts) != len(subjects):
        raise RuntimeError(f"{type(captioner).__name__} gave {len(texts)} captions for {len(subjects)} pictures")
    return [*texts]


def _num_words(text: str) -> int:
    return len(text.split())


def _is_there(captions: Captions, path: Path) -> bool:
    """Whether a caption came into being since the pictures were listed."""
    try:
        return bool(captions.read(path))
    except UnreadableCaption:
        return True


def _say_stopping(text: str) -> None:
    say_at_once("stopping: finishing this batch (ctrl+c again leaves at once; what is written stays)")
