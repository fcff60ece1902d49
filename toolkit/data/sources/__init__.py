"""Data sets that are not a plain folder: metadata files, tar shards, Hugging Face folders.

toolkit.data.sources.choice is the entrance, and toolkit.data.sources.reading says how a source is read:
`read_source(path, Reading(caption_ext, strict, videos=..., index=..., cache=..., ...)) -> Scan` reads whatever `path`
names, plain folders too. `open_source(path) -> Source | None` only looks (None: a plain folder; ValueError: what is
wrong with the path) and loads nothing heavy; `source.scan(reading) -> Scan` then does the work.
"""
