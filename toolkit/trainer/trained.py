"""What a config trains: networks on the denoiser, its experts and the text encoders, with optimizer and average."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Module

from toolkit.context import Context
from toolkit.models.family import Facts, Family, Trainable
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


def choose_trained(facts: Facts, options: TrainSection) -> tuple[Trainable, ...]:
    """The modules that are trained. ValueError if text encoders are wanted that cannot be."""
    encoders = [trainable for trainable in facts.trainables if trainable.is_text_encoder]
    if options.train_text_encoder and not encoders:
        raise ValueError("train.train_text_encoder: this model's text encoders cannot be trained; set it to false")
    denoisers = [trainable for trainable in facts.trainables if not trainable.is_text_encoder]
    return (*(denoisers if options.train_unet else ()), *(encoders if options.train_text_encoder else ()))


def build_state(config: TrainerPlugin, family: Family, context: Context, trained: tuple[Trainable, ...]) -> TrainState:
    """Network, optimizer, average: everything that changes while training. The modules must be loaded."""
    options = config.train
    torch.manual_seed(context.seed)
    network = build_group(partial(_build_network, config), [_place(config, family, one) for one in trained])
    for trainable, _ in network.members:
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


def _left_out(network: NetworkGroup, path: Path) -> list[str]:
    """What is said of a file's text encoders, where none is trained; the files of experts have none."""
    count = count_text_layers(path) if path.is_file() else 0
    if not count or any(trainable.is_text_encoder for trainable, _ in network.members):
        return []
    return [f"{path}: {count} layers of text encoders are left out; train.train_text_encoder would train them"]


def _place(config: TrainerPlugin, family: Family, trainable: Trainable) -> tuple[Module, Trainable, Codec]:
    codec = Codec(config.model.key_names, trainable.prefix, config.save.key_format)
    return family.parts[trainable.part], trainable, codec


def _build_network(config: TrainerPlugin, module: Module, trainable: Trainable, codec: Codec) -> Network:
    if config.network is not None:
        return config.network.build(module, trainable, codec)
    only, ignore = config.model.only_if_contains or (), config.model.ignore_if_contains or ()
    is_single_file = config.save.save_format == "safetensors"
    return FullWeights(module, trainable.part, only, ignore, trainable.file, is_single_file)


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
