"""The model card of a trainer's run: before it, for `--dry-run`, as far as the config tells; after it, with the rest.

Light: what needs torch comes in as an `Outcome`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.config.embedded import EMBEDDED
from toolkit.models.hub import HUB_FILE, HUB_SITES, Root, is_reachable
from toolkit.reporting.hub_upload import last_pictures
from toolkit.reporting.licenses import license_of
from toolkit.reporting.model_card import Base, ModelCard, Shown
from toolkit.reporting.summary import format_duration
from toolkit.reporting.usage import Usage
from toolkit.reporting.versions import device_name, installed_version

if TYPE_CHECKING:
    from jobs import Job
    from toolkit.trainer.config import TrainerPlugin

LATER = "Lines of Python for this model follow when it has been loaded."
PICTURES_LATER = "Sample pictures of the last step follow, if the config asks for some."
NO_PIPELINE = (
    "No pipeline of diffusers takes this file as it is. `aitk lora inspect` tells what is in it, and "
    "`aitk lora convert` writes the names that other programs look for."
)
NO_FULL_PIPELINE = "diffusers has no pipeline for this model; the names of the weights are those of the base model."


@dataclass(frozen=True)
class Outcome:
    """What is known only when a run is over."""

    files: Sequence[str]
    pipeline_tag: str
    usage: Usage | None
    steps: int
    seconds: float
    shown_how: str = ""


def make_card(config: TrainerPlugin, job: Job, outcome: Outcome | None = None) -> str:
    """The text of README.md, with ${NAME} for secrets. Without an outcome nothing is asked of the network."""
    folder = config.folder(job.name)
    base = base_of(config, ask=outcome is not None)
    parts = [one.title for one in (config.network, config.words) if one is not None]
    kinds = [*([config.network.type] if config.network else []), *(["textual_inversion"] if config.words else [])]
    is_adapter = bool(parts)
    card = ModelCard(
        title=job.name,
        base=base,
        network=" and ".join(parts) or None,
        files=outcome.files if outcome else [f"{folder.name}.safetensors"],
        tags=["diffusers", *kinds, config.model.arch, "aitk"],
        pipeline_tag=outcome.pipeline_tag if outcome else None,
        trigger=config.trigger,
        usage=outcome.usage if outcome else None,
        no_usage=(NO_PIPELINE if is_adapter else NO_FULL_PIPELINE) if outcome else LATER,
        shown=_shown(folder) if outcome else [],
        shown_how=outcome.shown_how if outcome else PICTURES_LATER,
        sheet="samples/contact_sheet.png" if outcome and (folder / "samples/contact_sheet.png").exists() else None,
        facts=_facts(config, outcome),
        limits=_limits(config, is_adapter),
    )
    return job.document.mask(card.text())


def base_of(config: TrainerPlugin, ask: bool) -> Base:
    """The base model as strangers know it: a Hub id, or a name without the path on this machine."""
    name, revision = config.model.name_or_path, config.model.revision
    root = Root(name, revision)
    if name.startswith(EMBEDDED):
        title = name.removeprefix(EMBEDDED)
        return Base(title, None, license_of(root.folder, None), "comes with aitk")
    if (place := root.folder) is not None:
        found = license_of(place if place.is_dir() else place.parent, None)
        return Base(place.name, None, found, "from the disk of whoever trained it")
    repository = repository_of(name)
    return Base(repository or name, repository, license_of(None, repository, revision, ask and is_reachable()))


def repository_of(name: str) -> str | None:
    """The Hub id in the name of a checkpoint that is not on this disk."""
    site = next((site for site in HUB_SITES if name.startswith(site)), "")
    plain = name.removeprefix(site)
    if found := HUB_FILE.fullmatch(plain.partition("?")[0]):
        return found[1]
    return plain if plain.count("/") == 1 else None


def _shown(folder: Path) -> list[Shown]:
    """The pictures of the last step; of a video the mp4, which browsers play."""
    from toolkit.sampling.picture_files import read_metadata

    found = []
    for path in last_pictures(folder / "samples"):
        video = path.with_suffix(".mp4")
        shown = video if video.exists() else path
        found.append(Shown(shown.relative_to(folder).as_posix(), str(read_metadata(path).get("prompt", ""))))
    return found


def _facts(config: TrainerPlugin, outcome: Outcome | None) -> dict[str, str]:
    """The table of the training."""
    train, network, words = config.train, config.network, config.words
    alpha = f", alpha {network.effective_alpha:g}" if network is not None and network.has_rank else ""
    trained = [*([network.title + alpha] if network else []), *([words.title] if words else [])]
    batch = f"{train.batch_size}" + (f" x {train.accumulate} accumulated" if train.accumulate > 1 else "")
    sizes, count = config.resolutions(), config.num_pictures()
    facts = {
        "trained": " and ".join(trained) or "the weights themselves",
        "steps": str(outcome.steps if outcome else train.steps),
        "batch size": batch,
        "optimizer": f"{train.optimizer}, learning rate {train.lr:g}, {train.lr_scheduler}",
        "pictures": f"{count}" if count else "",
        "resolution": ", ".join(map(str, sorted(set(sizes)))),
        "precision": f"computed in {train.dtype}, saved in {config.save.dtype}",
        "base model quantized": config.model.qtype if config.model.quantize else "",
        "moving average": "of the weights, saved instead of them" if train.ema_config.use_ema else "",
        "seed": str(config.training_seed),
    }
    if outcome:
        facts["time"] = f"{format_duration(outcome.seconds)} since the last start, on {device_name()}"
        packages = ("aitk", "diffusers", "torch")
        facts["software"] = ", ".join(f"{name} {installed_version(name)}" for name in packages)
    return {key: value for key, value in facts.items() if value}


def _limits(config: TrainerPlugin, is_adapter: bool) -> list[str]:
    """What a stranger should not expect."""
    sizes, count = sorted(set(config.resolutions())), config.num_pictures()
    at = f" at {', '.join(map(str, sizes))} pixels" if sizes else ""
    seen = f"It has seen {count} pictures{at}. " if count else ""
    lines = [
        f"{seen}What its training did not show it has not learned, and what the examples share beside the subject, "
        "such as a background or a style, it may have learned with it.",
        "Its quality was not measured; the sample pictures are all there is to judge by.",
        "What the base model cannot do, and its biases, are still there.",
    ]
    if is_adapter and config.model.quantize:
        lines.append(
            f"It was trained on a base model quantized to {config.model.qtype}; on the full one it may differ."
        )
    return lines
