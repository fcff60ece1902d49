"""An inspection as text for a terminal: as wide as the terminal is, plain in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolkit.data.inspect.facts import Count, Inspection, Spread, TokenFacts

FIRST = 5
"""So many of a list are named; the JSON and the page have them all."""
BAR = 24
WIDE = 60
"""Columns of a terminal that the whole table of buckets needs; a narrower one has sizes and numbers of samples."""
LONGEST = 60
"""Characters of a caption in a table."""


def print_inspection(facts: Inspection, console: Console) -> None:
    """Print the facts, what is wrong first."""
    _heading(console, facts.path)
    for line in _overview(facts):
        _line(console, line)
    _faults(facts, console)
    _heading(console, "Sizes")
    for line in _sizes(facts):
        _line(console, line)
    console.print(_bars([(aspect.name, aspect.pictures) for aspect in facts.aspects]))
    _heading(console, f"Buckets (sides are multiples of {facts.divisor})")
    console.print(_buckets(facts, console.width >= WIDE))
    _heading(console, "Captions")
    for line in _captions(facts):
        _line(console, line)


def percent(share: float) -> str:
    """A share as text; a small one is not told as none."""
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def several(number: int, noun: str, plural: str = "") -> str:
    """`1 picture`, `2,000 pictures`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shown(text: str) -> str:
    """A name as it can be printed everywhere: without control characters and bytes that are no text."""
    printable = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return printable.encode("utf-8", "backslashreplace").decode()


def shortened(text: str) -> str:
    """A caption on one line."""
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def spread_text(spread: Spread, unit: str) -> str:
    """`12 to 80 words, median 33`."""
    return f"{spread.least:,g} to {spread.most:,g} {unit}, median {spread.middle:,g}"


def token_text(facts: TokenFacts) -> str:
    """How long the texts are for one text encoder."""
    end = "no limit is named" if facts.limit is None else f"{len(facts.too_long):,} longer than its {facts.limit:,}"
    return f"{facts.tokenizer}: {spread_text(facts.tokens, 'tokens')}; {end}"


def _overview(facts: Inspection) -> Iterable[str]:
    videos = f", {several(facts.videos, 'video')}" if facts.videos else ""
    yield f"{several(facts.pictures, 'picture')}{videos}, {several(facts.captions.present, 'caption')}"
    for source in facts.sources if len(facts.sources) > 1 else ():
        yield f"  {source.place}: {several(source.pictures + source.videos, 'file')}, {source.captions:,} with caption"
    others = [f"{count:,} {ending}" for source in facts.sources for ending, count in source.other_files.items()]
    if others:
        yield f"other files, not read: {', '.join(others)}"
    at = ", ".join(map(str, facts.resolutions))
    batches = several(facts.batches, "batch", "batches")
    yield f"{several(facts.samples, 'sample')} in {batches} per epoch at {at}"
    if not facts.pixels_read:
        yield "only headers were read: broken pixels and near duplicates were not looked for"


def _faults(facts: Inspection, console: Console) -> None:
    """What somebody should look at."""
    captions = facts.captions
    broken = [f"{broken.name}: {broken.reason}" for broken in facts.broken]
    filtered = [f"{found.name} ({found.width} x {found.height})" for found in facts.filtered]
    copies = [" = ".join(picture.name for picture in group) for group in facts.exact_duplicates]
    alike = [
        " ~ ".join([group[0].picture.name, *(f"{one.picture.name} ({one.distance})" for one in group[1:])])
        for group in facts.near_duplicates
    ]
    texts = [f"{shortened(same.text)} ({len(same.names)})" for same in captions.duplicates]
    lone = [name for source in facts.sources for name in source.lone_captions]
    for title, names in (
        ("broken, left out", broken),
        ("left out by the keys of the data set", filtered),
        ("without a caption", captions.missing),
        ("with an empty caption", captions.empty),
        ("captions that cannot be read", [f"{found.name}: {found.reason}" for found in captions.unreadable]),
        ("captions without a picture", lone),
        ("groups of identical files", copies),
        ("groups that look the same (bits of 64 that differ)", alike),
        ("captions that several pictures share", texts),
    ):
        _list(console, title, names, "red" if title.startswith("broken") else "yellow")
    _list(console, "more that a run would report", _rest(facts), "yellow")
    for note in facts.notes:
        _list(console, note.text, note.names, "cyan", first=2)


def _rest(facts: Inspection) -> list[str]:
    """What a run would report that is told by no list of names."""
    listed = tuple(f"{found.name}: {found.reason}; left out" for found in facts.broken)
    return [
        line
        for line in facts.problems
        if not line.endswith(listed) and " have no caption (" not in line and ": not UTF-8" not in line
    ]


def _sizes(facts: Inspection) -> Iterable[str]:
    sizes, crops = facts.sizes, facts.crops
    for title, picture in (("smallest", sizes.smallest), ("largest", sizes.largest)):
        if picture:
            yield f"{title}: {picture.width} x {picture.height}  {shown(picture.name)}"
    yield f"median: {sizes.megapixels.middle:.2f} megapixels"
    if sizes.small:
        most = max(facts.resolutions)
        yield f"fewer pixels than {most} x {most}, not enlarged: {len(sizes.small):,}"
    yield f"cropped: {percent(crops.mean)} on average; more than 10 %: {crops.over_tenth:,}"
    for crop in crops.worst[:FIRST]:
        where = f"{crop.width} x {crop.height} at {crop.bucket}"
        yield f"  {percent(crop.cropped)}  {shown(crop.name)} ({where})"


def _buckets(facts: Inspection, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("size", no_wrap=True)
    for title in ("samples", "share", "batches", "last") if wide else ("samples",):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    most = max((bucket.share for bucket in facts.buckets), default=1)
    for bucket in facts.buckets:
        last = f"{bucket.last_batch}/{bucket.batch_size}"
        more = (
            percent(bucket.share),
            f"{bucket.batches:,}",
            Text(last, "yellow" if bucket.last_batch < bucket.batch_size else ""),
        )
        bar = Text("#" * max(1, round(12 * bucket.share / most)), "cyan")
        table.add_row(bucket.name, f"{bucket.samples:,}", *(more if wide else ()), bar)
    return table


def _captions(facts: Inspection) -> Iterable[str]:
    captions = facts.captions
    if captions.present:
        yield f"length: {spread_text(captions.words, 'words')}; {spread_text(captions.characters, 'characters')}"
    for facts_of_one in captions.tokens:
        yield token_text(facts_of_one)
        yield from (f"  too long: {shown(name)}" for name in facts_of_one.too_long[:FIRST])
        if len(facts_of_one.too_long) > FIRST:
            yield f"  and {len(facts_of_one.too_long) - FIRST:,} more"
    if captions.present and not captions.tokens:
        yield "tokens: not counted; --tokenizer FOLDER says what the text encoder sees"
    for trigger in captions.triggers:
        yield (
            f"trigger '{trigger.word}': written in {trigger.captions_with:,}, "
            f"put in front of {trigger.captions_without:,}"
        )
    for title, counts in (("phrases", captions.common_phrases), ("words", captions.common_words)):
        if counts:
            yield f"most common {title}: {_counted(counts)}"


def _counted(counts: Sequence[Count]) -> str:
    return ", ".join(f"{shown(shortened(count.text))} ({count.pictures:,})" for count in counts[: 2 * FIRST])


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(shown(text), "bold"))


def _line(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=not console.is_terminal)


def _list(console: Console, title: str, names: Sequence[str], style: str, first: int = FIRST) -> None:
    """A title with a number, and the first of the names."""
    if not names:
        return
    console.print(
        Text.assemble((f"{title}: ", style), (f"{len(names):,}", f"bold {style}")), soft_wrap=not console.is_terminal
    )
    for name in names[:first]:
        _line(console, f"  {shown(name)}")
    if len(names) > first:
        _line(console, f"  and {len(names) - first:,} more")


def _bars(rows: Sequence[tuple[str, int]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)  # type: ignore[arg-type]
    most = max((count for _, count in rows), default=1)
    for name, count in rows:
        table.add_row(name, f"{count:,}", Text("#" * max(1, round(BAR * count / most)), "cyan"))
    return table
