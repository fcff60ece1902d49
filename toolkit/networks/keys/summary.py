"""What a LoRA-like file is, from its header and its scalars: reads no weights and needs no torch."""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from toolkit.networks.keys.guess import Candidate, guess_family, key_format, stems_of
from toolkit.networks.keys.names import DENOISER, NOT_DENOISER
from toolkit.networks.keys.suffixes import ADAPTER_CONFIG, ALPHA, DOWN, network_type, split_key

MAX_HEADER = 100_000_000
# the low-rank factor whose first size is the rank, by suffix
RANKED = (DOWN, "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
_NUMBER = re.compile(r"(?P<group>.+?)[._](?P<number>\d+)[._]")


def summarize(path: Path, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """The facts of the file as plain data. Raises ValueError if it is no safetensors file."""
    with path.open("rb") as file:
        tensors, header, start = read_header(file, path)
        alphas = {
            _scalar(file, start, entry) for key, entry in tensors.items() if (split_key(key) or ("", ""))[1] == ALPHA
        }
    keys = list(tensors)
    stems = stems_of(keys)
    guess = guess_family(header, keys, candidates)
    suffixes = {split[1] for key in keys if (split := split_key(key)) is not None}
    ranks = Counter(
        int(entry["shape"][0]) for key, entry in tensors.items() if (split_key(key) or ("", ""))[1] in RANKED
    )
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "network": network_type(suffixes),
        "layers": len(stems),
        "tensors": len(tensors),
        "unknown_keys": [key for key in keys if split_key(key) is None],
        "dtypes": dict(Counter(entry["dtype"] for entry in tensors.values())),
        "ranks": {str(rank): count for rank, count in sorted(ranks.items())},
        "alphas": sorted(alpha for alpha in alphas if alpha is not None) or _alphas_in_header(header),
        "key_format": key_format(stems),
        "base_model": header.get("base_model") or header.get("ss_sd_model_name"),
        "families": [arch for candidate in guess.candidates for arch in candidate.archs],
        "families_told": guess.reason if guess.candidates else "not recognized",
        "blocks": count_blocks(stems),
        "header": {key: _as_data(value) for key, value in header.items()},
    }


def read_header(file: BinaryIO, path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """(tensor name -> dtype, shape, data_offsets; header entries; where the data begins)."""
    try:
        size = int.from_bytes(start := file.read(8), "little")
        if len(start) < 8 or size > MAX_HEADER:
            raise ValueError("it does not begin with a safetensors header" if start else "it is empty")
        entries = json.loads(file.read(size))
        header = dict(entries.pop("__metadata__", None) or {})
        for entry in entries.values():
            _, shape, (_, _) = (entry[key] for key in ("dtype", "shape", "data_offsets"))
            if not isinstance(shape, list):
                raise ValueError("no list of tensors")
    except KeyError as error:
        raise ValueError(f"{path} is not a readable safetensors file: a tensor in its header has no {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    return entries, header, 8 + size


def read_file_header(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(tensor name -> dtype, shape, data_offsets; header entries). Raises ValueError if it is no safetensors file."""
    with path.open("rb") as file:
        return read_header(file, path)[:2]


def count_text_layers(path: Path) -> int:
    """How many layers of text encoders a file has."""
    return sum(1 for stem in stems_of(read_file_header(path)[0]) if NOT_DENOISER.match(stem))


def count_blocks(stems: Iterable[str]) -> dict[str, dict[str, int]]:
    """Group of blocks -> how many blocks and layers the file has of it, in the file's own names."""
    groups: dict[str, list[str]] = {}
    for stem in stems:
        match = _NUMBER.match(DENOISER.sub("", stem, count=1) + ".")
        groups.setdefault(match["group"] if match else "outside of blocks", []).append(match["number"] if match else "")
    return {group: {"blocks": len(set(numbers)), "layers": len(numbers)} for group, numbers in groups.items()}


def _scalar(file: BinaryIO, start: int, entry: Mapping[str, Any]) -> float | None:
    """A tensor of one number; None if it has another dtype than alphas have."""
    begin, end = entry["data_offsets"]
    file.seek(start + begin)
    data = file.read(end - begin)
    if entry["dtype"] == "BF16" and len(data) == 2:
        return float(struct.unpack("<f", b"\0\0" + data)[0])
    code = {"F16": "<e", "F32": "<f", "F64": "<d", "I64": "<q"}.get(entry["dtype"])
    return float(struct.unpack(code, data)[0]) if code and len(data) == struct.calcsize(code) else None


def _alphas_in_header(header: Mapping[str, str]) -> list[float]:
    config = _as_data(header.get(ADAPTER_CONFIG, "{}"))
    found = config.items() if isinstance(config, dict) else ()
    return sorted(
        {float(alpha) for key, alpha in found if key.endswith(".lora_alpha") and isinstance(alpha, (int, float))}
    )


def _as_data(value: str) -> Any:
    """JSON groups as data; numbers and words stay texts, as they are in the file."""
    if value[:1] in "{[":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
