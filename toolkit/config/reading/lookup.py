"""Which file `aitk run foo` means."""

from __future__ import annotations

from pathlib import Path

from toolkit.config.errors import ConfigError, Problem
from toolkit.config.names import nearest
from toolkit.registry import ROOT

ENDINGS = ("", ".json", ".jsonc", ".yaml", ".yml")


def find_config(argument: str | Path, root: Path = ROOT) -> Path:
    """The file: as given, then below config/ and config/examples/; the ending may be left out."""
    given = Path(argument).expanduser()
    places = [given] if given.is_absolute() else [given, root / "config" / given, root / "config/examples" / given]
    for place in places:
        for ending in ENDINGS:
            file = place.with_name(place.name + ending) if place.name else place
            if file.is_file():
                return file
    looked = ", ".join(str(shorten(place)) for place in places)
    reason = "is a folder" if given.is_dir() else "no such config file"
    raise ConfigError(
        [Problem(str(argument), "", f"{reason}; looked for {looked} (with or without .yaml, .json){_near(places)}")]
    )


def shorten(path: Path) -> Path:
    """Relative to the working directory where that is shorter."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _near(places: list[Path]) -> str:
    """The file beside one of the places whose name is nearest."""
    for place in places:
        try:
            names = {file.name: file for file in sorted(place.parent.iterdir()) if file.suffix in ENDINGS[1:]}
        except OSError:
            continue
        stems = {Path(name).stem: name for name in names}
        found = nearest(place.name, names) or stems.get(nearest(place.stem, stems) or "")
        if found:
            return f"; did you mean '{shorten(names[found])}'?"
    return ""
