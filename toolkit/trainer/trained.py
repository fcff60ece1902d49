"""What a config trains: networks on the denoiser, its experts and the text encoders, or words, with their optimizer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn import Module

from toolkit.config.sharing import why_not_shared
from toolkit.context import Context
from toolkit.models.family import Facts, Family, Trainable
from toolkit.networks.embedding import LORA_FILE, Embedding, file_name
from toolkit.networks.full import FullWeights
from toolkit.networks.group import NetworkGroup, build_group
from toolkit.networks.keys.codec import Codec
from toolkit.networks.keys.summary import count_text_layers
from toolkit.networks.network import Network
from toolkit.training.ema import Ema
from toolkit.training.state import TrainState

if TYPE_CHECKING:
    from toolkit.config.sections.train import TrainSection
    from toolkit.trainer.config import TrainerPlugin

BYTES_PER_WEIGHT = 16
"""fp32 weights, their gradients, and two moments."""
FULL = 0.6
"""Share of a GPU's memory that these may take; activations and the frozen parts need the rest."""
Teaches = Literal["nothing", "words", "words alone"]
"""Whether the text encoders are taught new words, beside what else is trained."""


def teaches(config: TrainerPlugin) -> Teaches:
    """What a config teaches the text encoders."""
    if config.words is None:
        return "nothing"
    return "words" if config.trains_model else "words alone"


def choose_trained(facts: Facts, options: TrainSection, teaches: Teaches = "nothing") -> tuple[Trainable, ...]:
    """The modules that are trained, beside new words or not. ValueError if what is wanted cannot be trained."""
    if teaches != "nothing" and not facts.vocabularies:
        raise ValueError("embedding: this model's text encoders cannot be taught words; train a network instead")
    if teaches == "words alone":
        return ()
    encoders = [trainable for trainable in facts.trainables if trainable.is_text_encoder]
    if options.train_text_encoder and not encoders:
        raise ValueError("train.train_text_encoder: this model's text encoders cannot be trained; set it to false")
    chosen = (*(facts.denoisers if options.train_unet else ()), *(encoders if options.train_text_encoder else ()))
    if teaches == "nothing":
        return chosen
    # the embedding's file is named by its word, and the network's by what it is
    return tuple(replace(trainable, file=LORA_FILE + trainable.file) for trainable in chosen)


def build_state(config: TrainerPlugin, family: Family, context: Context, trained: tuple[Trainable, ...]) -> TrainState:
    """Network, optimizer, average: everything that changes while training. The modules must be loaded."""
    options = config.train
    torch.manual_seed(context.seed)
    words = _words(config, family)
    places = [_place(config, family, one) for one in trained]
    network = build_group(partial(_build_network, config, context), places, words)
    for trainable in trained:
        _prepare(family.parts[trainable.part], trainable, options.gradient_checkpointing)
    print(*network.describe(), sep="\n", flush=True)
    if config.network is not None and config.network.pretrained_lora_path:
        path = Path(config.network.pretrained_lora_path).expanduser()
        print(f"starts from {path}", *network.read(path, exact=False), *_left_out(network, path), sep="\n", flush=True)
    ema = options.ema_config
    return TrainState(
        network,
        options.optimizer_plugin().build(_groups(network, config), options.lr),
        ema=Ema(list(network.params.values()), ema.ema_decay) if ema.use_ema else None,
        scaler=torch.amp.GradScaler(context.device.type) if context.dtype == torch.float16 else None,
    )


def _words(config: TrainerPlugin, family: Family) -> list[tuple[Trainable, Network]]:
    """The new words, as a member of the group."""
    section = config.words
    if section is None:
        return []
    embedding = Embedding(
        family.parts,
        family.facts.vocabularies,
        section.trigger,
        section.tokens,
        section.init_words,
        section.suffix,
        config.train.embedding_lr or config.train.lr,
    )
    return [(Trainable("embedding", blocks="", prefix="", file=file_name(section.trigger)), embedding)]


def _left_out(network: NetworkGroup, path: Path) -> list[str]:
    """What is said of a file's text encoders, where none is trained; the files of experts have none."""
    count = count_text_layers(path) if path.is_file() else 0
    if not count or any(trainable.is_text_encoder for trainable, _ in network.members):
        return []
    return [f"{path}: {count} layers of text encoders are left out; train.train_text_encoder would train them"]


def _place(config: TrainerPlugin, family: Family, trainable: Trainable) -> tuple[Module, Trainable, Codec]:
    codec = Codec(config.model.key_names, trainable.prefix, config.save.key_format)
    return family.parts[trainable.part], trainable, codec


def _build_network(
    config: TrainerPlugin, context: Context, module: Module, trainable: Trainable, codec: Codec
) -> Network:
    if config.network is not None:
        return config.network.build(module, trainable, codec)
    only, ignore = config.model.only_if_contains or (), config.model.ignore_if_contains or ()
    is_single_file = config.save.save_format == "safetensors"
    is_shared = shares_weights(config, context, module)
    if is_shared and trainable.file:
        raise ValueError(
            "train.fsdp: the weights of experts cannot be shared out; train a network, or set it to false if every GPU "
            "can hold them whole"
        )
    return FullWeights(module, trainable.part, only, ignore, trainable.file, is_single_file, is_shared)


def shares_weights(config: TrainerPlugin, context: Context, module: Module) -> bool:
    """Whether each rank keeps only a part of the weights that are trained."""
    wanted = config.train.fsdp
    if context.world == 1 or config.network is not None or wanted is False:
        return False
    if wanted == "auto":
        if context.device.type != "cuda" or why_not_shared(config.train, config.network, config.words):
            return False
        room = torch.cuda.get_device_properties(context.device).total_memory
        return sum(param.numel() for param in module.parameters()) * BYTES_PER_WEIGHT > FULL * room
    return True


def _prepare(module: Any, trainable: Trainable, checkpointing: bool) -> None:
    """Training mode; and for text encoders, what loading does for a denoiser: recompute activations."""
    module.train()
    if checkpointing and trainable.is_text_encoder:
        # the other kind of checkpoint needs an input with a gradient, which frozen embeddings do not give
        enable = getattr(module, "activation_checkpointing_enable", None) or module.gradient_checkpointing_enable
        enable({"use_reentrant": False})


def _groups(network: NetworkGroup, config: TrainerPlugin) -> list[dict[str, Any]]:
    """The optimizer's groups, named by their module for the log."""
    options, plus = config.train, config.network.loraplus_lr_ratio if config.network else None
    rates = options.unet_lr or options.lr, options.text_encoder_lr or options.lr, plus
    return [
        {**group, "name": f"{trainable.part}.{number}" if number else trainable.part}
        for trainable, member in network.members
        for number, group in enumerate(member.param_groups(*rates))
    ]
