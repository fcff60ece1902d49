"""captions.jsonl in the run folder: what became of each picture, and where a run that replaces captions stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

WRITTEN, SKIPPED, FAILED, SHORT = "written", "skipped", "failed", "short"


class CaptionLog:
    """Lines {"file", "status", "seconds", "caption", "reason"} between a line `start` and a line `end` for each run."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def unfinished(self, settings: Mapping[str, Any]) -> set[str]:
        """Files that were written by runs with these settings since the last one that came to its end."""
        done: set[str] = set()
        for entry in self._entries():
            event = entry.get("event")
            if event == "end" or (event == "start" and entry.get("settings") != settings):
                done.clear()
            elif entry.get("status") == WRITTEN:
                done.add(entry["file"])
        return done

    def start(self, settings: Mapping[str, Any]) -> None:
        """A run begins."""
        self.add([{"event": "start", "settings": settings}])

    def end(self) -> None:
        """It did all that there was to do."""
        self.add([{"event": "end"}])

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Append lines, whole and on the disk."""
        now = round(time.time(), 3)
        text = "".join(json.dumps({"time": now, **entry}, ensure_ascii=False) + "\n" for entry in entries)
        with self.file.open("a+b") as stream:
            if stream.tell() and not _ends_whole(stream):
                text = "\n" + text
            # a byte of a name that is no text becomes \udcXX, which JSON reads back
            stream.write(text.encode("utf-8", "backslashreplace"))
            stream.flush()
            os.fsync(stream.fileno())

    def _entries(self) -> Iterable[dict[str, Any]]:
        if not self.file.exists():
            return
        for line in self.file.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                # cut off by a kill
                continue
            if isinstance(entry, dict):
                yield entry


def _ends_whole(stream: Any) -> bool:
    stream.seek(-1, os.SEEK_END)
    return bool(stream.read(1) == b"\n")
