"""The end of a run: the last lines, the model card, the upload if one is wanted; and whether a run came to it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from toolkit.config.explain import to_yaml
from toolkit.models.family import Family
from toolkit.reporting.hub_upload import CARD, NotUploaded, upload
from toolkit.reporting.model_card import write_card
from toolkit.reporting.summary import summary
from toolkit.run_folder import RunFolder, is_complete
from toolkit.sampling.hook import SamplePictures
from toolkit.sampling.picture_files import list_pictures
from toolkit.sampling.prompts import SamplePrompt
from toolkit.trainer.card import Outcome, make_card
from toolkit.trainer.usage import pipeline_tag, shareable, usage_of
from toolkit.training.state import TrainState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs import Job
    from toolkit.trainer.config import TrainerPlugin


def finish(
    config: TrainerPlugin,
    job: Job,
    folder: RunFolder,
    family: Family,
    state: TrainState,
    seconds: float,
    sample: SamplePictures | None,
) -> None:
    """Say where the files are and how to use them, write the card, upload. A failed upload is told, nothing more."""
    networks = state.network.by_file()
    weights = {suffix: (folder.weights_path(None, suffix, one.suffix), one) for suffix, one in networks.items()}
    prompts = list(sample.prompts) if sample else []
    usage = usage_of(config, family, weights, prompts)
    lines = summary(
        [path for path, _ in weights.values()],
        step=state.step,
        seconds=seconds,
        usage=usage,
        samples_dir=folder.samples_dir if sample else None,
        contact_sheet=sample.sheet if sample else None,
    )
    print(*lines, sep="\n", flush=True)
    outcome = Outcome(
        files=[path.name for path, _ in weights.values()],
        pipeline_tag=pipeline_tag(family.facts, prompts),
        usage=shareable(usage) if usage else None,
        steps=state.step,
        seconds=seconds,
        shown_how=_shown_how(prompts, state.step),
    )
    card = folder.path / CARD
    is_written = write_card(card, make_card(config, job, outcome))
    print(f"\nModel card: {card}{'' if is_written else ' (edited by hand, left as it is)'}", flush=True)
    if config.save.push_to_hub:
        _push(config, folder)


def has_ended(config: TrainerPlugin, job: Job, folder: RunFolder, num_pictures: int) -> bool:
    """Whether an earlier start of the same config came to its end, and all files of it are there still."""
    train = config.train
    if train.start_step is not None or train.force_first_sample or config.save.push_to_hub:
        return False
    saves = [save for save in folder.checkpoints() if save.step == train.steps]
    files = [folder.state_path, *(folder.path / name for save in saves for name in save.files)]
    samples = [picture for picture in list_pictures(folder.samples_dir) if picture.step == train.steps]
    return (
        any(save.final for save in saves)
        and all(map(is_complete, files))
        and len(samples) >= num_pictures
        and (folder.path / CARD).is_file()
        and folder.read_config() == to_yaml(job, config)
    )


def _push(config: TrainerPlugin, folder: RunFolder) -> None:
    save = config.save
    assert save.hf_repo_id is not None, "checked with the config"
    print(f"Uploading to {save.hf_repo_id} ...", flush=True)
    try:
        address = upload(folder, save.hf_repo_id, save.hf_private, save.hf_include)
    except NotUploaded as error:
        print(f"warning: {error}", flush=True)
    else:
        print(f"Uploaded: {address}", flush=True)


def _shown_how(prompts: Sequence[SamplePrompt], step: int) -> str:
    """How the pictures of the card were made, as far as it is the same for all of them."""
    if not prompts:
        return ""
    first = asdict(prompts[0])
    shared = {key for key, value in first.items() if all(getattr(other, key) == value for other in prompts)}
    sayings = {
        "network_multiplier": f"strength {first['network_multiplier']:g}",
        "steps": f"{first['steps']} sampling steps",
        "guidance": f"guidance {first['guidance']:g}",
        "seed": f"seed {first['seed']}",
    }
    said = [text for key, text in sayings.items() if key in shared]
    if {"width", "height"} <= shared:
        said.append(f"{first['width']} x {first['height']} pixels")
    return f"Made by aitk at step {step}{': ' if said else ''}{', '.join(said)}. None was picked out or left out."
