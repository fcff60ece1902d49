"""The process `count_images`. It sees plain arguments, never a config, so that it is as useful from a notebook."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


class CountImagesProcess:
    """Counts images and captions per folder, and writes a report."""

    def __init__(self, folder: Path, report: Path, extensions: Sequence[str]) -> None:
        self.folder = folder
        self.report = report
        self.suffixes = {f".{name.lower().lstrip('.')}" for name in extensions}

    def run(self) -> None:
        """Count, print, write."""
        if not self.folder.is_dir():
            raise ValueError(f"folder: {self.folder} is not a folder")
        counts = self.count()
        for name, row in counts.items():
            print(f"{name}: {row['images']} images, {row['without_caption']} without a caption")
        self.report.parent.mkdir(parents=True, exist_ok=True)
        self.report.write_text(json.dumps(counts, indent=2), encoding="utf-8")
        print(f"wrote {self.report}")

    def count(self) -> dict[str, dict[str, int]]:
        """Folder, relative to the first one -> its numbers; folders without images are left out."""
        counts: dict[str, dict[str, int]] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.suffix.lower() in self.suffixes:
                row = counts.setdefault(str(path.parent.relative_to(self.folder)), {"images": 0, "without_caption": 0})
                row["images"] += 1
                row["without_caption"] += not path.with_suffix(".txt").is_file()
        return counts
