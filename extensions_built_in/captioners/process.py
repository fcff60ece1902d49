"""The process that captions a folder: list, load, describe batch by batch, write, log. It can be stopped anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from extensions_built_in.captioners.listing import list_pictures, open_captions
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
from toolkit.reporting.progress import Advance, bar
from toolkit.reporting.versions import versions
from toolkit.run_folder import RunFolder
from toolkit.training.shares import Shares
from toolkit.training.stop import StopFlag, say_at_once

if TYPE_CHECKING:
    from extensions_built_in.captioners.config import WriteCaptions
    from jobs import Job

NOT_SETTINGS = {"batch_size", "num_workers", "device"}
"""Keys that change nothing about the captions."""


@dataclass(frozen=True)
class Outcome:
    """What became of some pictures."""

    entries: list[dict[str, Any]]
    """Lines of the log."""
    texts: dict[Path, str] = field(default_factory=dict)
    """Captions that only the first rank may write."""


class CaptionProcess:
    """Writes a caption for every picture that needs one."""

    root: Path
    captions: Captions
    shares: Shares[Path, Outcome]

    def __init__(self, config: WriteCaptions, job: Job) -> None:
        self.config, self.job, self.section = config, job, config.caption
        self.folder = RunFolder(Path(config.training_folder).expanduser() / (config.name or job.name), job.name)
        self.log = CaptionLog(self.folder.path / "captions.jsonl")
        self.counts: Counter[str] = Counter()
        self.reason = ""

    def run(self) -> None:
        """Do it all; raises `Stopped` after a clean stop by the user."""
        section = self.section
        context = make_context(section.device or self.config.device, section.dtype, 0, together=True)
        with self.folder.lock() if context.is_first else nullcontext():
            self.root, todo, self.captions = context.of_first(self._begin)
            self.shares = Shares(context, todo)
            if todo:
                self._caption(context)
            if context.is_first:
                self._finish()
        if self.shares.num_done < self.shares.total:
            raise Stopped(f"{self._summary()}; the same command continues with the others")

    def _begin(self) -> tuple[Path, list[Path], Captions]:
        """The folder, the pictures to caption, and where captions go; the first rank looks for all."""
        self.folder.write_config(to_yaml(self.job, self.config))
        self.folder.write_versions(versions(self.job.extensions))
        captions = open_captions(self.section)
        settings = self._settings()
        done = self.log.unfinished(settings) if self.section.recaption else set()
        listing = list_pictures(self.section, captions, frozenset(done))
        print(*listing.describe(), sep="\n", flush=True)
        self.log.start(settings)
        names = [(listing.name(path), why) for path, _, why in listing.skipped]
        self.log.add({"file": name, "status": SKIPPED, "seconds": 0.0, "reason": why} for name, why in names)
        captions.prepare(listing.todo)
        return listing.root, listing.todo, captions

    def _caption(self, context: Context) -> None:
        """This rank's part, and what the first has to do for the others."""
        with bar("captions", self.shares.total) as advance, StopFlag(_say_stopping) as stop:
            if self.shares.own:
                self._describe(self.section.build(context), advance, stop)
            for outcome in self.shares.rest():
                self._record(outcome, advance)

    def _describe(self, captioner: Captioner, advance: Advance, stop: StopFlag) -> None:
        for batch in self._batches(advance, stop):
            begin = time.monotonic()
            texts = self._texts(captioner, [self._subject(*pair) for pair in batch])
            seconds = (time.monotonic() - begin) / len(batch)
            self._tell(self._written([path for path, _ in batch], texts, seconds), advance)
            if stop.requested:
                return

    def _finish(self) -> None:
        """Nobody writes any more."""
        self.captions.close()
        if self.shares.num_done < self.shares.total:
            return
        self.log.end()
        print(self._summary(), flush=True)
        if self.shares.total and not self.counts[WRITTEN]:
            raise ValueError(f"no caption could be written ({self._summary()}); the last reason: {self.reason}")

    def _batches(self, advance: Advance, stop: StopFlag) -> Iterator[list[tuple[Path, Image.Image]]]:
        """Pictures that could be opened; the others are named and logged."""
        section = self.section
        batch: list[tuple[Path, Image.Image]] = []
        ahead = max(2 * section.batch_size, section.num_workers)
        for path, image in opened_ahead(self.shares.own, section.max_res, section.num_workers, ahead):
            if stop.requested:
                return
            if isinstance(image, BrokenImage):
                self._tell(Outcome([self._entry(path, FAILED, reason=image.reason)]), advance)
                continue
            batch.append((path, image))
            if len(batch) == section.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _subject(self, path: Path, image: Image.Image) -> Subject:
        """What the model is shown and asked."""
        there = ""
        # with recaption, one that cannot be read counts as none
        with suppress(UnreadableCaption):
            there = self.captions.read(path)
        known = values(path, there, self.section.trigger_word)
        seed = int.from_bytes(hashlib.blake2b(os.fsencode(self._name(path)), digest_size=6).digest(), "little")
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

    def _written(self, paths: Sequence[Path], texts: Sequence[str | ValueError], seconds: float) -> Outcome:
        """Put the texts of a batch on the disk, if this rank may; what became of its pictures."""
        section, captions = self.section, self.captions
        made: dict[Path, str] = {}
        entries = []
        for path, text in zip(paths, texts, strict=True):
            if isinstance(text, ValueError):
                status, more = FAILED, {"reason": in_one_line(str(text))}
            elif (count := _num_words(text)) < section.min_words:
                status, more = SHORT, {"reason": f"only {count} of {section.min_words} words: {in_one_line(text)!r}"}
            elif not section.recaption and _is_there(captions, path):
                status, more = SKIPPED, {"reason": "got a caption while this ran"}
            else:
                known = values(path, "", section.trigger_word)
                made[path] = filled(section.prefix, known) + in_one_line(text) + filled(section.suffix, known)
                status, more = WRITTEN, {"caption": made[path]}
            entries.append(self._entry(path, status, seconds, **more))
        if captions.in_one_file:
            return Outcome(entries, made)
        captions.write(made)
        return Outcome(entries)

    def _tell(self, outcome: Outcome, advance: Advance) -> None:
        for told in self.shares.tell(len(outcome.entries), outcome):
            self._record(told, advance)

    def _record(self, outcome: Outcome, advance: Advance) -> None:
        """Count, say and log what became of pictures, once their captions are on the disk."""
        if outcome.texts:
            self.captions.write(outcome.texts)
        for entry in outcome.entries:
            status = entry["status"]
            self.counts[status] += 1
            if status != WRITTEN:
                self.reason = f"{self.root / entry['file']}: {entry['reason']}"
                print(f"{self.reason}; {'left alone' if status == SKIPPED else 'no caption written'}", flush=True)
        self.log.add(outcome.entries)
        advance(len(outcome.entries))

    def _entry(self, path: Path, status: str, seconds: float = 0.0, **more: str) -> dict[str, Any]:
        return {"file": self._name(path), "status": status, "seconds": round(seconds, 3), **more}

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

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
