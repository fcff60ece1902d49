"""What extracting a LoRA costs: time and memory for a pair of single files much larger than their largest layer.

    python scripts/bench_extract.py [--layers 24] [--width 3072] [--rank 16] [--device cpu]

The files have the layers of FLUX.1's double blocks in bf16, random, and a difference of rank 8 with noise on it. Peak
memory is counted without the pages of mapped files, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Write the pair, extract, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=3072)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--mode", default="fixed")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base, tuned = write_pair(Path(folder), options.layers, options.width)
        measure(base, tuned, options)


def write_pair(folder: Path, layers: int, width: int) -> tuple[Path, Path]:
    """Two files with `layers` weights [4 width, width] each."""
    import torch
    from safetensors.torch import save_file

    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(4 * width, width, generator=rng) * 0.02
    change = torch.randn(4 * width, 8, generator=rng) @ torch.randn(8, width, generator=rng) * 1e-3
    base, tuned = folder / "base.safetensors", folder / "tuned.safetensors"
    for file, tensor in ((base, weight), (tuned, weight + change)):
        save_file({f"blocks.{number}.proj.weight": tensor.bfloat16().clone() for number in range(layers)}, file)
    return base, tuned


def measure(base: Path, tuned: Path, options: argparse.Namespace) -> int:
    """Extract and print what it took; returns the peak memory beyond the start, in bytes."""
    import torch

    from toolkit.models.family import Trainable
    from toolkit.models.memory import trim_heap
    from toolkit.models.pair import Pair
    from toolkit.models.weights import weights_of
    from toolkit.networks.extract import Extraction, Rules, extract

    with torch.device("meta"):
        module = blocks(options.layers, options.width)
    first, second = weights_of([base]), weights_of([tuned])

    def close() -> None:
        first.close()
        second.close()

    device = torch.device(options.device)
    rules, found, place = Rules(options.mode, options.rank), Extraction(), Trainable("x", ".*", "x.")
    pair = Pair(module, first, second, close)
    # what libraries set aside when they are first used is not counted, nor what writing the files has left
    extract(pair, place, rules, device, torch.float16, Extraction(), pair.names[:1])
    gc.collect()
    trim_heap()
    with AnonymousMemory() as memory:
        begun = time.monotonic()
        extract(pair, place, rules, device, torch.float16, found)
        seconds = time.monotonic() - begun
    layer = 4 * options.width**2 * 4
    print(
        f"{options.layers} layers [{4 * options.width}, {options.width}], files of {base.stat().st_size / 1e9:.2f} GB"
    )
    print(f"{seconds / options.layers:.2f} s per layer on {options.device}, {options.mode} {options.rank}")
    print(f"peak memory beyond the start: {memory.peak / 1e6:.0f} MB; a layer in fp32 is {layer / 1e6:.0f} MB")
    print(f"peak with mapped files: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    if device.type == "cuda":
        print(f"peak on the GPU: {torch.cuda.max_memory_allocated() / 1e6:.0f} MB")
    print(f"kept: {found.energy:.4%}")
    return memory.peak


def blocks(layers: int, width: int) -> Any:
    """A module of large Linear layers."""
    from torch import nn

    inner = [nn.ModuleDict({"proj": nn.Linear(width, 4 * width, bias=False)}) for _ in range(layers)]
    return nn.ModuleDict({"blocks": nn.ModuleList(inner)})


class AnonymousMemory:
    """The most memory, beyond what there was at the start and without mapped files, in bytes; sampled."""

    def __enter__(self) -> AnonymousMemory:
        self.start = self.peak = self._now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak -= self.start

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, self._now())

    @staticmethod
    def _now() -> int:
        text = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
