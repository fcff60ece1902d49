"""What users write and ai-toolkit does not read as meant: the table of spellings that are read as meant.

What a spelling is and does: spelling.py.
"""

from __future__ import annotations

from typing import Any

from toolkit.config.document import Document
from toolkit.config.errors import KeyPath
from toolkit.config.script_spellings import SCRIPT_SPELLINGS
from toolkit.config.section import Section
from toolkit.config.spelling import (
    Spelling,
    anything,
    changed,
    dropped,
    is_text,
    matches,
    moved,
    one_of,
    pattern_of,
    rewritten,
)

FLAGS = {
    "is_flux": "flux",
    "is_v2": "sd2",
    "is_v3": "sd3",
    "is_pixart_sigma": "pixart_sigma",
    "is_pixart": "pixart",
    "is_auraflow": "auraflow",
    "is_lumina2": "lumina2",
    "is_ssd": "ssd",
    "is_vega": "vega",
    "is_xl": "sdxl",
}
"""The more special ones first: an SSD config also says is_xl."""
OLD_FLAGS = ("is_v2", "is_xl")
"""Where these are off and nothing else is on, ai-toolkit's first examples mean SD 1."""
OPTIMIZERS = {"prodigyopt": "prodigy", "adamw_8bit": "adamw8bit", "adamw8": "adamw8bit", "adam_w": "adamw"}
QTYPES = ("qfloat8", "qint8", "qint4", "qint2", "float8", "int8")
NEAREST_QTYPES = {
    "uint8": "qint8", "uint7": "qint8", "uint6": "qint8", "uint5": "qint8",
    "uint4": "qint4", "uint3": "qint4", "uint2": "qint2",
}  # fmt: skip
"""Types of ai-toolkit's own quantization, and what stores at least as many bits here."""
WITH_WARMUP = {"constant": "constant_with_warmup", "cosine": "cosine_with_warmup"}


def _has_capitals(value: Any) -> bool:
    return isinstance(value, str) and value != value.lower()


def _has_tag(value: Any) -> bool:
    return isinstance(value, str) and ":" in value


def _has_equal_entries(value: Any) -> bool:
    return isinstance(value, list) and len({str(item) for item in value}) < len(value)


def _read_numbers(text: str) -> list[Any]:
    found = [part.strip() for part in text.strip("()[] ").split(",")]
    try:
        return [float(part) for part in found if part]
    except ValueError:
        return found


def _has_flag(document: Document, path: KeyPath) -> bool:
    """Whether another flag beside this one names a model."""
    return any(document.get((*path[:-1], flag)) is True for flag in FLAGS)


def _read_flag(document: Document, base: KeyPath, path: KeyPath) -> None:
    """`is_flux: true` is `arch: flux`."""
    arch, value = (*path[:-1], "arch"), document.get(path)
    if value is True and document.get(arch) is None:
        family = FLAGS[str(path[-1])]
        document.notice(path, f"read as `arch: {family}`")
        document.duplicate(path, arch)
        document.set(arch, family)
    elif value is True and document.get(arch) != FLAGS[str(path[-1])]:
        document.notice(path, f"has no effect, because model.arch is set to {document.get(arch)}")
    elif value is False and path[-1] in OLD_FLAGS and document.get(arch) is None and not _has_flag(document, path):
        document.notice(path, "read as `arch: sd1`, as no other model is named")
        document.duplicate(path, arch)
        document.set(arch, "sd1")
    document.remove(path)


def _read_quantize(document: Document, base: KeyPath, path: KeyPath) -> None:
    """`quantize: qfloat8` is `quantize: true` with `qtype: qfloat8`."""
    value, qtype = document.get(path), (*path[:-1], str(path[-1]).replace("quantize", "qtype"))
    document.notice(path, f"read as `{path[-1]}: true` with `{qtype[-1]}: {value}`")
    if document.get(qtype) is None:
        document.duplicate(path, qtype)
    document.set(path, True)


def _read_loraplus(document: Document, base: KeyPath, path: KeyPath) -> None:
    """LoRA+ is a LoRA whose B learns faster, 16 times in the paper."""
    ratio = (*path[:-1], "loraplus_lr_ratio")
    if document.get(ratio) is None:
        document.set(ratio, 16.0)
    document.notice(path, f"read as `type: lora` with `loraplus_lr_ratio: {document.get(ratio):g}` (ai-toolkit trains "
                    "a plain LoRA)")  # fmt: skip
    document.set(path, "lora")


def _read_adapter(document: Document, base: KeyPath, path: KeyPath) -> None:
    """`qtype: uint4|FILE` is `qtype: uint4` with `accuracy_recovery_adapter: FILE`."""
    qtype, _, file = str(document.get(path)).partition("|")
    adapter = (*path[:-1], "accuracy_recovery_adapter")
    document.notice(path, f"read as `qtype: {qtype}` with `accuracy_recovery_adapter: {file}`")
    document.duplicate(path, adapter)
    document.set(adapter, file)
    document.set(path, qtype)


def _read_optimizer(document: Document, base: KeyPath, path: KeyPath) -> None:
    """`optimizer: {type, lr, ...}`."""
    group = dict(document.get(path))
    document.notice(path, "a group of keys; read as train.optimizer, train.lr and train.optimizer_params")
    name = group.pop("type", None) or group.pop("name", None)
    lr = (*path[:-1], "lr")
    if "lr" in group and document.get(lr) is None:
        document.move((*path, "lr"), lr)
    group.pop("lr", None)
    for key in group:
        document.move((*path, key), (*path[:-1], "optimizer_params", key))
    document.set(path, name)


def _read_warmup(document: Document, base: KeyPath, path: KeyPath) -> None:
    """Warm-up steps belong to the options of the schedule, and `constant` becomes constant_with_warmup."""
    train = path[:-1]
    schedule = document.get((*train, "lr_scheduler")) or "constant"
    document.set((*train, "lr_scheduler"), WITH_WARMUP.get(schedule, schedule))
    document.notice(
        path, f"read as lr_scheduler_params.num_warmup_steps, with {document.get((*train, 'lr_scheduler'))}"
    )
    document.move(path, (*train, "lr_scheduler_params", "num_warmup_steps"))


def _read_8bit(document: Document, base: KeyPath, path: KeyPath) -> None:
    """`use_8bit_adam: true` with an Adam optimizer is adamw8bit."""
    optimizer = (*path[:-1], "optimizer")
    if document.get(optimizer) in (None, "adamw", "adam", "adamw8bit"):
        document.notice(path, "read as `optimizer: adamw8bit`")
        document.duplicate(path, optimizer)
        document.set(optimizer, "adamw8bit")
        document.remove(path)


def _read_linear_timesteps(document: Document, base: KeyPath, path: KeyPath) -> None:
    """The flags are older than `timestep_type` and win over it."""
    kind = "weighted2" if path[-1] == "linear_timesteps2" else "weighted"
    document.notice(path, f"read as `timestep_type: {kind}`")
    document.set((*path[:-1], "timestep_type"), kind)
    document.remove(path)


SPELLINGS: tuple[Spelling, ...] = (
    # one level off, or another tool's name for it
    moved("log_config", "logging"),
    moved("model_kwargs", "model.model_kwargs"),
    moved("network_kwargs", "network.network_kwargs"),
    moved("network.only_if_contains", "network.network_kwargs.only_if_contains"),
    moved("network.ignore_if_contains", "network.network_kwargs.ignore_if_contains"),
    moved("network.network_kwargs.exclude_if_contains", "network.network_kwargs.ignore_if_contains"),
    moved("network.linear_dropout", "network.dropout"),
    moved("train.gradient_clipping", "train.max_grad_norm"),
    moved("train.gradient_clip_norm", "train.max_grad_norm"),
    moved("train.mixed_precision", "train.dtype", one_of("bf16", "fp16", "fp32")),
    moved("train.optimizer_args", "train.optimizer_params", lambda value: isinstance(value, dict)),
    moved("train.lr_scheduler_params.warmup_steps", "train.lr_scheduler_params.num_warmup_steps"),
    moved("train.dataloader_num_workers", "datasets.*.num_workers"),
    moved("logging.wandb_project", "logging.project_name"),
    moved("logging.wandb_run_name", "logging.run_name"),
    moved("datasets.*.repeats", "datasets.*.num_repeats"),
    moved("datasets.*.flip_aug", "datasets.*.flip_x"),
    moved("datasets.*.shuffle_caption", "datasets.*.shuffle_tokens"),
    # names that ai-toolkit reads too
    moved("datasets.*.caption_type", "datasets.*.caption_ext", is_silent=True),
    moved("network.rank", "network.linear", is_silent=True, wins=True),
    moved("network.alpha", "network.linear_alpha", is_silent=True),
    changed("model.arch", _has_tag, lambda value: value.partition(":")[0]),
    changed("model.arch", one_of("flex1"), lambda value: "flux"),
    changed("network.type", _has_capitals, str.lower),
    changed("train.optimizer", _has_capitals, str.lower),
    changed("train.lr_scheduler", _has_capitals, str.lower),
    *(rewritten(f"model.{flag}", lambda value: isinstance(value, bool), _read_flag) for flag in FLAGS),
    rewritten("train.linear_timesteps", one_of(True), _read_linear_timesteps),
    rewritten("train.linear_timesteps2", one_of(True), _read_linear_timesteps),
    # keys for what is so anyway
    dropped("model.use_safetensors", one_of(True), "it is always so"),
    dropped("save.use_safetensors", one_of(True), "it is always so"),
    dropped("save.safe_serialization", one_of(True), "it is always so"),
    dropped("model.local_files_only", one_of(False), "it is off"),
    dropped("train.enable_ttb", one_of(False), "it is off"),
    dropped("train.use_8bit_adam", one_of(False), "train.optimizer decides"),
    dropped("train.lr_warmup_steps", one_of(0), "there is no warm-up"),
    dropped("train.warmup_steps", one_of(0), "there is no warm-up"),
    dropped("datasets.*.pin_memory", anything, "memory is pinned wherever there is a GPU"),
    # values
    changed("device", lambda value: isinstance(value, list) and len(value) > 0, lambda value: value[0],
            "a list, but one process uses one device: {value}"),
    rewritten("model.quantize", lambda value: value in QTYPES, _read_quantize),
    rewritten("model.qtype", lambda value: isinstance(value, str) and "|" in value, _read_adapter),
    *(changed(f"model.{key}", lambda value: isinstance(value, str) and value in NEAREST_QTYPES,
              lambda value: NEAREST_QTYPES[value], "read as {value}, the nearest type here")
      for key in ("qtype", "qtype_te")),
    rewritten("model.quantize_te", lambda value: value in QTYPES, _read_quantize),
    changed("model.arch", one_of("wan22_14b_t2v"), lambda value: "wan22_14b", "read as {value}"),
    changed("network.type", one_of("lierla"), lambda value: "lora", "read as {value}, its newer name"),
    changed("network.type", one_of("adalora"), lambda value: "lora",
            "there is no AdaLoRA; read as {value}, as ai-toolkit does"),
    rewritten("network.type", one_of("loraplus", "lora_plus", "lora+"), _read_loraplus),
    rewritten("train.optimizer", lambda value: isinstance(value, dict), _read_optimizer),
    changed("train.optimizer", lambda value: isinstance(value, str) and value in OPTIMIZERS,
            lambda value: OPTIMIZERS[value], "read as {value}"),
    changed("train.optimizer_params.betas", is_text, _read_numbers, "a text; read as {value}"),
    rewritten("train.use_8bit_adam", one_of(True), _read_8bit),
    rewritten("train.lr_warmup_steps", anything, _read_warmup),
    rewritten("train.warmup_steps", anything, _read_warmup),
    changed("datasets.*.resolution", _has_equal_entries, lambda value: list(dict.fromkeys(value)),
            "equal sizes count once: {value} (ai-toolkit trains each picture twice)"),
    changed("datasets.*.caption_ext", one_of("filename", ".filename"), lambda value: "filename",
            "captions are taken from the names of the pictures"),
    changed("save.save_every", lambda value: value is None or value is False or value == 0, lambda value: 0,
            "saved only at the end"),
    changed("logging.log_every", lambda value: value is None or value == 0, lambda value: 1, "logged every step"),
    *SCRIPT_SPELLINGS,
)  # fmt: skip


def is_spelling(path: KeyPath) -> bool:
    """True if the table reads this key, relative to its process."""
    return any(spelling.path == pattern_of(path) for spelling in SPELLINGS)


def respell(document: Document, base: KeyPath, plugin: type[Section]) -> None:
    """Read the spellings in the process at `base` as meant."""
    for spelling in SPELLINGS:
        if spelling.needs not in plugin.model_fields:
            continue
        for path in matches(document, base, spelling.path):
            if spelling.applies(document.get(path)):
                spelling.rewrite(document, base, path)
