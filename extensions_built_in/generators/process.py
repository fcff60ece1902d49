"""The process that makes pictures: list, leave out what is there, encode, make batch by batch, write.

A picture follows from the prompt, the seed and the settings, and its file says which. So a run that was stopped, or
killed, goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from extensions_built_in.generators.album import Album, Page
from extensions_built_in.generators.orders import Order
from jobs import Stopped
from toolkit.atomic import remove_leftovers, write_text
from toolkit.context import Context, make_context
from toolkit.data.cache.folder import cache_root
from toolkit.data.cache.rows import RowCache
from toolkit.data.pictures.image import to_pixels
from toolkit.data.pictures.pixels import item_pixels
from toolkit.models.family import Family
from toolkit.models.source import fingerprint
from toolkit.networks.loras import Lora, Loras
from toolkit.reporting.failures import explained
from toolkit.reporting.progress import bar
from toolkit.run_lock import hold
from toolkit.sampling.picture_files import write_picture
from toolkit.sampling.sample import Advance
from toolkit.sampling.studio import Studio
from toolkit.trainer.frozen import Frozen
from toolkit.training.shares import Shares
from toolkit.training.stop import StopFlag, say_at_once
from toolkit.training.text_rows import makers

if TYPE_CHECKING:
    from extensions_built_in.generators.config import GeneratorPlugin
    from jobs import Job

LOOKS = {"lora_path", "inference_lora_path", "accuracy_recovery_adapter", "quantize", "qtype", "quantize_te",
         "qtype_te", "quantize_kwargs", "text_encoder_bits", "model_kwargs", "vae_dtype", "te_dtype"}  # fmt: skip
"""Keys of the model that decide what its pictures look like, beside the weights."""
ON_THE_WAY = ".aitk-generate.json"


class GeneratorProcess:
    """Fills a folder with pictures."""

    def __init__(self, config: GeneratorPlugin, job: Job) -> None:
        self.config, self.job, self.making = config, job, config.making
        self.folder = config.destination
        self.album = Album(self.folder, self.making.ext)
        self.cache = cache_root(self.folder, os.environ)

    def run(self) -> None:
        """Make what is missing; raises `Stopped` after a clean stop by the user."""
        with ExitStack() as stack:
            stack.enter_context(explained(self._circumstances()))
            context = make_context(self.config.device, self.config.dtype, 0, together=True)
            context = replace(context, cache=self.cache)
            if context.is_first:
                stack.enter_context(hold(self.folder / ".aitk.lock"))
                remove_leftovers(self.folder)
            context.wait()  # the first rank may have made the model
            model = self.config.model
            if self.making.compile:
                model = model.model_copy(update={"compile": True})
            family = model.build(context, checkpointing=False, bypass_guidance=False)
            found = [Lora(lora.path, lora.weight) for lora in self.config.loras]
            loras = Loras(family, model.key_names, found, print) if found else None
            pages, missing = context.of_first(lambda: self._look(family, context, loras))
            if missing:
                studio = Studio(
                    family,
                    context.alone,
                    Frozen(model, family),
                    loras,
                    self.making.sampler,
                    self.making.batch_size,
                    RowCache(self.cache / "text", about={"arch": model.arch, "model": model.name_or_path}),
                    model.encoding,
                )
                self._make(Shares(context, missing), studio, stack)
            if context.is_first:
                self._finish(pages)

    # -- what is made ---------------------------------------------------------------------------------------------

    def _look(self, family: Family, context: Context, loras: Loras | None) -> tuple[list[Page], list[Page]]:
        """All that is wanted, and what is missing of it."""
        orders = self.config.orders(family, self._base(), self.cache)
        pages = self.album.pages(orders, self._digests(orders, family, context, loras))
        missing = self.album.missing(pages)
        self._tell(pages, missing)
        return pages, missing

    def _digests(self, orders: Sequence[Order], family: Family, context: Context, loras: Loras | None) -> list[str]:
        """What decides each picture, in 12 letters."""
        names = dict.fromkeys(name for verb in ("encode_prompt", "predict", "decode") for name in family.needs[verb])
        shared = [
            makers(family, names),
            json.loads(self.config.model.model_dump_json(include=LOOKS)),
            str(context.dtype),
            self.making.sampler,
            loras.digest if loras else [],
        ]
        return [_digest([shared, self._decides(order)]) for order in orders]

    def _decides(self, order: Order) -> dict[str, Any]:
        facts: dict[str, Any] = {key: value for key, value in asdict(order.prompt).items() if key != "index"}
        facts["images"] = [fingerprint(Path(path).expanduser()).hex() for path in order.prompt.images]
        if (item := order.start) is not None:
            facts["start"] = [item.record.digest.hex(), item.flip_x, item.flip_y, self.making.denoise_strength]
        return facts

    def _base(self) -> int:
        """What is behind everything random: the seed, or one that is drawn and holds until all is made."""
        if self.making.seed != -1:
            return int(self.making.seed)
        record = self.folder / ON_THE_WAY
        settings = _digest(json.loads(self.config.model_dump_json(exclude={"device"})))
        try:
            known = json.loads(record.read_text(encoding="utf-8"))
            if known["settings"] == settings:
                return int(known["base"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        base = secrets.randbits(32)
        write_text(record, json.dumps({"settings": settings, "base": base}))
        return base

    def _tell(self, pages: Sequence[Page], missing: Sequence[Page]) -> None:
        count = len({page.path for page in pages})
        if count < len(pages):
            print(f"{len(pages) - count} of {len(pages)} pictures are the same as others; these are made once")
        rest = f"{count - len(missing)} are there, {len(missing)} to be made" if len(missing) < count else "to be made"
        print(f"{count} picture{'s' * (count != 1)} in {self.folder}: {rest if missing else 'all there'}", flush=True)

    # -- making it ------------------------------------------------------------------------------------------------

    def _make(self, shares: Shares[Page, int], studio: Studio, stack: ExitStack) -> None:
        stop = stack.enter_context(StopFlag(_tell_stop))
        prompts = [page.order.prompt for page in shares.own]
        if prompts:
            studio.encode(prompts, bar)
            stack.enter_context(studio.opened())
        batches = ([shares.own[place] for place in places] for places in studio.batches(prompts))
        with bar("making pictures", shares.total) as advance:
            # of pictures that are not done, but shown
            part = 0.0

            def sampled(share: float) -> None:
                nonlocal part
                advance(share)
                part += share
                stop.check()

            for number in shares.in_batches(batches, lambda pages: self._make_batch(pages, studio, sampled), stop):
                advance(number - part)
                part = 0.0
        if shares.num_done < shares.total:
            text = f"{shares.num_done} of {shares.total} pictures are made in {self.folder}"
            raise Stopped(f"{text}; the same command makes the rest")

    def _make_batch(self, pages: Sequence[Page], studio: Studio, advance: Advance) -> None:
        prompts = [page.order.prompt for page in pages]
        items = [page.order.start for page in pages if page.order.start is not None]
        starts = [item_pixels(item) for item in items]
        strength = self.making.denoise_strength if items else 1.0
        tensors = [to_pixels(pixels[None]) for pixels in starts] if items else None
        made = studio.make(prompts, tensors, strength, advance)
        for place, (page, frames) in enumerate(zip(pages, made, strict=True)):
            if items:
                self._copy_input(page, Image.fromarray(starts[place]))
            self.album.write(page, frames, self._facts(page))

    def _copy_input(self, page: Page, picture: Image.Image) -> None:
        """The picture as the model saw it, under the name of what was made of it."""
        if page.order.copies is None:
            return
        path = page.order.copies / page.path.relative_to(self.folder)
        write_text(path.with_suffix(".txt"), page.order.prompt.prompt)
        write_picture(picture, path, {"digest": page.digest})

    def _facts(self, page: Page) -> dict[str, object]:
        """What the file of a picture says about it."""
        facts: dict[str, object] = {**asdict(page.order.prompt), "model": self.config.model.name_or_path}
        if self.making.sampler:
            facts["sampler"] = self.making.sampler
        if self.config.loras:
            facts["loras"] = [[lora.path, lora.weight] for lora in self.config.loras]
        if page.order.start is not None:
            facts |= {"start": page.order.start.record.name, "denoise_strength": self.making.denoise_strength}
        return {**facts, "digest": page.digest}

    def _finish(self, pages: Sequence[Page]) -> None:
        networks = [Path(lora.path).stem for lora in self.config.loras]
        sheet = self.album.write_sheet(pages, " + ".join([self.config.model.name_or_path, *networks]))
        if sheet is not None:
            print(f"contact sheet: {sheet}")
        (self.folder / ON_THE_WAY).unlink(missing_ok=True)
        print(f"pictures: {self.folder}", flush=True)

    def _circumstances(self) -> dict[str, object]:
        """What decides which advice fits a failure."""
        model = self.config.model
        return {"quantize": model.quantize, "folder": str(self.folder), "model": model.name_or_path}


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=6).hexdigest()


def _tell_stop(_: str) -> None:
    say_at_once("stopping after this sampling step (ctrl+c again leaves at once)")
