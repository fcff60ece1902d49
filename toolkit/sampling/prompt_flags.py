"""Inline flags of a sample prompt, as kohya and ai-toolkit users write them: `a cat --w 512 --h 768 --n blurry`.

Only a known `--x` is a flag. Any other `--`, be it a dash in prose or a word, stays in the prompt; one that looks like
a flag is told.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any

FLAGS: dict[str, tuple[str, type]] = {
    "n": ("neg", str),
    "w": ("width", int),
    "h": ("height", int),
    "d": ("seed", int),
    "seed": ("seed", int),
    "l": ("guidance_scale", float),
    "cfg": ("guidance_scale", float),
    "s": ("sample_steps", int),
    "steps": ("sample_steps", int),
    "m": ("network_multiplier", float),
    "network_multiplier": ("network_multiplier", float),
    "gr": ("guidance_rescale", float),
    "frames": ("num_frames", int),
    "num_frames": ("num_frames", int),
    "fps": ("fps", int),
    "ctrl_img": ("ctrl_img", str),
}
# Flags of ai-toolkit that are no part of the prompt, but that nothing here obeys.
UNSUPPORTED: dict[str, type] = {
    "p2": str,
    "n2": str,
    "a": float,
    "ref": float,
    "ev": str,
    "extra_values": str,
    "ctrl_idx": int,
}
_MEANT = {
    "width": "w",
    "height": "h",
    "neg": "n",
    "negative": "n",
    "negative_prompt": "n",
    "guidance": "l",
    "scale": "l",
}
_KINDS = {**{flag: kind for flag, (_, kind) in FLAGS.items()}, **UNSUPPORTED}
_FLAG = re.compile(
    r"(?:^|(?<=\s))--(" + "|".join(sorted(_KINDS, key=len, reverse=True)) + r")(?:[\s=]+|$)", re.IGNORECASE
)
_WORD = re.compile(r"(?:^|(?<=\s))--([A-Za-z_]\w*)")
# Word processors turn -- into one of these.
_LONG_DASH = re.compile(r"(?:^|(?<=\s))[\u2013\u2014](" + "|".join(FLAGS) + r")\s+[-\d.]+")


def read_flags(text: str, where: str, notice: Callable[[str], None]) -> tuple[str, dict[str, Any]]:
    """Return the prompt without its flags, and their values by the keys of a sample item."""
    pieces = _FLAG.split(text)
    prompt, values = [pieces[0].strip()], {}
    for flag, piece in zip(map(str.lower, pieces[1::2]), map(str.strip, pieces[2::2]), strict=True):
        value, rest = _value(flag, piece, where)
        prompt.append(rest)
        if flag in FLAGS:
            values[FLAGS[flag][0]] = value
        else:
            notice(f"{where}: --{flag} {piece} has no effect yet and is left out")
    left = " ".join(filter(None, prompt))
    _tell_near_misses(left, where, notice)
    return left, values


def _value(flag: str, piece: str, where: str) -> tuple[Any, str]:
    """Return a flag's value and the text behind it; a text value goes on to the next flag."""
    kind = _KINDS[flag]
    if kind is str:
        return piece, ""
    word, _, rest = piece.partition(" ")
    try:
        return kind(word), rest.strip()
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ValueError(f"{where}: --{flag} needs {wanted}, got {word or 'nothing'!r}") from None


def _tell_near_misses(prompt: str, where: str, notice: Callable[[str], None]) -> None:
    """Tell of words that stay in the prompt although a flag was probably meant."""
    for word in _WORD.findall(prompt):
        near = difflib.get_close_matches(word.lower(), [*_MEANT, *_KINDS], n=1, cutoff=0.75)
        if near:
            meant = _MEANT.get(near[0], near[0])
            notice(f"{where}: --{word} is no flag and stays in the prompt; --{meant} is one")
    for letter in _LONG_DASH.findall(prompt):
        notice(f"{where}: a long dash makes no flag, so it stays in the prompt; write --{letter} with two hyphens")
