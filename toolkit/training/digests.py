"""Hashes of the files that belong to samples: masks, references and what else an index of the data set lacks."""

from __future__ import annotations

import hashlib

from toolkit.data.records import DIGEST_BYTES, Record


class Digests:
    """Each file is read once in a run, although records of it are made again and again.

    A file that changes while the run goes on keeps the hash that its row was stored by.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def of(self, record: Record) -> bytes:
        """The hash of a content. Raises OSError if the file cannot be read."""
        if record.known_digest:
            return record.known_digest
        # names of a fixed length, because there may be a million paths
        name = f"{record.part} {record.path}".encode("utf-8", "surrogateescape")
        place = hashlib.blake2b(name, digest_size=DIGEST_BYTES).digest()
        if place not in self._known:
            self._known[place] = record.digest
        return self._known[place]
