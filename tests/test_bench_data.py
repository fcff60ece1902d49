"""`scripts/bench_data.py` with next to nothing to do: every line comes, what it measures is right, nothing stays."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"rounds": 1, "pictures": 1, "headers": 20, "latents": 8, "rows": 100, "files": 60}
TITLES = [
    "decode, resize and bucket to 512, CPU per picture",
    "decode, resize and bucket to 512, clock, one worker",
    "decode, resize and bucket to 512, CPU, beside coarse draft",
    "decode, resize and bucket to 1024, CPU per picture",
    "decode, resize and bucket to 1024, clock, one worker",
    "decode, resize and bucket to 1024, CPU, beside coarse draft",
    "memory of a worker, 12 MP at 1024",
    "header index with captions, CPU per file",
    "header index with captions, clock",
    "latent cache build, read by a thread, clock",
    "latent cache build, read by a thread, CPU of encoder",
    "latent cache build, share of the clock in the VAE",
    "cached reads of 100 rows, gathered, per core",
    "cached reads, gathered, 100 beside 100",
    "cached reads of 100 rows, padded, per core",
    "cached reads, padded, 100 beside 100",
    "opening the caches of 100 rows",
    "60 images, 60 captions: warm start",
    "60 images, 60 captions: beside first start",
    "60 images, 60 captions: CPU, beside bare looks",
    "60 images, 60 captions: memory per image",
]
RATIO = re.compile(r" (\d+\.\d{3})(?:  (at (?:least|most) [\d.]+(?:, MISSED)?))?$")


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_it_prints_every_line_and_removes_its_files(tmp_path: Path) -> None:
    options = [part for name, number in SMALL.items() for part in (f"--{name}", str(number))]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "bench_data.py"), "--quick", "--folder", str(tmp_path), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["ours", "beside", "ratio", "target"]
    assert [line[:60].split("  ")[0].strip() for line in lines] == TITLES
    assert [line for line in lines if not RATIO.search(line)] == []
    assert sum("at least" in line or "at most" in line for line in lines) == 13
    assert list(tmp_path.iterdir()) == []
