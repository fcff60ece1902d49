"""The ends of keys: what a tensor is to its layer, under one name for all the spellings in use. No torch."""

from __future__ import annotations

import re

DOWN, UP, MID = "lora_A.weight", "lora_B.weight", "lora_mid.weight"
MAGNITUDE = "lora_magnitude_vector"
ALPHA = "alpha"
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
DIFF = ("diff", "diff_b")
ADAPTER_CONFIG = "lora_adapter_metadata"
"""Entry of a header in which diffusers keeps the configuration of peft, ranks and alphas included."""

_SPELLINGS = {
    DOWN: r"\.lora_A(?:\.\w+)?\.weight|\.lora_A|(?:\.lora_|[._]lora\.|\.lora_linear_layer\.)down\.weight",
    UP: r"\.lora_B(?:\.\w+)?\.weight|\.lora_B|(?:\.lora_|[._]lora\.|\.lora_linear_layer\.)up\.weight",
    MID: r"\.lora_mid\.weight",
    MAGNITUDE: r"\.lora_magnitude_vector(?:\.\w+)?(?:\.weight)?|\.dora_scale|\.magnitude",
    ALPHA: r"\.alpha",
    "diff": r"\.diff|\.w_norm",
    "diff_b": r"\.diff_b|\.b_norm",
    **{name: rf"\.{name}" for name in (*LOHA, *LOKR)},
}
_KEY = re.compile(
    r"(?P<stem>.+?)(?:" + "|".join(f"(?P<s{number}>{text})" for number, text in enumerate(_SPELLINGS.values())) + r")$"
)
# how the formats of other programs spell what has another name in ours
_KOHYA = {DOWN: "lora_down.weight", UP: "lora_up.weight", MAGNITUDE: "dora_scale"}
_ORIGINAL = {MAGNITUDE: "dora_scale"}
WRITTEN = {"diffusers": {}, "kohya": _KOHYA, "comfyui": _ORIGINAL, "original": _ORIGINAL}


def split_key(key: str) -> tuple[str, str] | None:
    """(name of the layer as the file has it, our suffix), or None if no network has such a key."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    number = next(number for number in range(len(_SPELLINGS)) if match[f"s{number}"] is not None)
    return match["stem"], list(_SPELLINGS)[number]


def network_type(suffixes: set[str]) -> str:
    """What the suffixes of a layer or file say about the network."""
    if MAGNITUDE in suffixes:
        return "dora"
    if DOWN in suffixes:
        return "lora"
    if suffixes & set(LOKR):
        return "lokr"
    if suffixes & set(LOHA):
        return "loha"
    return "full" if suffixes & set(DIFF) else "unknown"
