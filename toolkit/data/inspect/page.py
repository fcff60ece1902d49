"""An inspection as one page of HTML that needs nothing beside itself: no script, no file, no address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

from toolkit.data.bucket import Box
from toolkit.data.inspect.facts import BucketFacts, Example, Inspection, Picture
from toolkit.data.inspect.terminal import percent, several, shortened, shown, spread_text, token_text
from toolkit.data.inspect.thumbnails import thumbnails

MOST_THUMBNAILS = 480
"""On a page; each takes about 5 kB."""
LEAST_OF_BUCKET = 4
MOST_GROUPS = 24
MOST_OF_GROUP = 6
MOST_NAMES = 500
"""Of a list that is no list of broken files."""
Mark = Callable[[Picture], str]
"""A picture -> the address of its thumbnail, empty if there is none."""


def make_page(facts: Inspection) -> str:
    """The whole page. Reads the pictures that it shows, unless the inspection read headers only."""
    per_bucket = max(LEAST_OF_BUCKET, MOST_THUMBNAILS // max(1, len(facts.buckets)))
    wanted = [example.picture for bucket in facts.buckets for example in bucket.examples[:per_bucket]]
    wanted += [picture for group in _groups(facts) for picture, _ in group[:MOST_OF_GROUP]]
    made = thumbnails(wanted) if facts.pixels_read else {}
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    parts = [
        f"<h1>{text(facts.path)}</h1>",
        _tiles(facts),
        _problems(facts),
        f'<div class="two"><div>{_sizes(facts)}{_bucket_table(facts)}</div>{_captions(facts)}</div>',
        _duplicates(facts, made),
        _buckets(facts, made, per_bucket),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(facts.path)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """What a user wrote, safe inside the page."""
    return escape(shown(str(value)))


def _tiles(facts: Inspection) -> str:
    """The numbers at the top."""
    captions = facts.captions
    lacking = len(captions.missing) + len(captions.empty) + len(captions.unreadable)
    too_long = max((len(found.too_long) for found in captions.tokens), default=0)
    tiles = [
        ("pictures", facts.pictures, ""),
        ("videos", facts.videos, ""),
        ("captions", captions.present, ""),
        ("samples per epoch", facts.samples, ""),
        ("buckets", len(facts.buckets), ""),
        ("batches per epoch", facts.batches, ""),
        ("broken files", len(facts.broken), "bad"),
        ("left out by keys", len(facts.filtered), "warn"),
        ("without caption", lacking, "warn"),
        ("captions too long", too_long, "warn"),
        ("identical groups", len(facts.exact_duplicates), "warn"),
        ("look-alike groups", len(facts.near_duplicates), "warn"),
    ]
    always = {"pictures", "captions", "broken files"}
    cells = [
        f'<div class="tile {kind if value else ""}"><b>{value:,}</b><span>{name}</span></div>'
        for name, value, kind in tiles
        if value or name in always
    ]
    return f'<div class="tiles">{"".join(cells)}</div>'


def _problems(facts: Inspection) -> str:
    """Lists of what somebody should look at."""
    captions = facts.captions
    broken = [f"<b>{text(found.name)}</b>: {text(found.reason)}" for found in facts.broken]
    filtered = [f"{text(found.name)} ({found.width} x {found.height})" for found in facts.filtered]
    unreadable = [f"{text(found.name)}: {text(found.reason)}" for found in captions.unreadable]
    lone = [text(name) for source in facts.sources for name in source.lone_captions]
    others = [f"{count:,} {text(end)}" for source in facts.sources for end, count in source.other_files.items()]
    same = [f"{text(found.text)}: {', '.join(map(text, found.names))}" for found in captions.duplicates]
    small = [f"{text(found.name)} ({found.width} x {found.height})" for found in facts.sizes.small]
    lists = [
        _list("broken, left out", broken, "bad", is_open=True, most=len(broken)),
        _list("left out by the keys of the data set", filtered, "warn"),
        _list("captions that cannot be read", unreadable, "warn"),
        _list("without a caption", map(text, captions.missing), "warn"),
        _list("with an empty caption", map(text, captions.empty), "warn"),
        *(
            _list(f"longer than the {found.limit} tokens of {text(found.tokenizer)}", map(text, found.too_long), "warn")
            for found in captions.tokens
        ),
        _list("captions that several pictures share", same, "warn"),
        _list("captions without a picture", lone, "warn"),
        _list("smaller than the resolution; they are not enlarged", small),
        *(_list(text(note.text), map(text, note.names)) for note in facts.notes),
        _list("endings of other files, which are not read", others),
        _list("lines that a run would report", map(text, facts.problems)),
    ]
    return _section("Worth a look", "".join(lists)) if any(lists) else ""


def _list(title: str, lines: Iterable[str], kind: str = "", *, is_open: bool = False, most: int = MOST_NAMES) -> str:
    """A list that unfolds; nothing if it is empty."""
    every = list(lines)
    if not every:
        return ""
    more = [f'<li class="more">and {len(every) - most:,} more</li>'] if len(every) > most else []
    rows = [*(f"<li>{line}</li>" for line in every[:most]), *more]
    state = " open" if is_open else ""
    return (
        f'<details class="list {kind}"{state}><summary>{title} <b>{len(every):,}</b></summary>'
        f"<ul>{''.join(rows)}</ul></details>\n"
    )


def _sizes(facts: Inspection) -> str:
    sizes, crops = facts.sizes, facts.crops
    rows = [
        (name, f"{found.width} x {found.height} &nbsp;<span class='soft'>{text(found.name)}</span>")
        for name, found in (("smallest", sizes.smallest), ("largest", sizes.largest))
        if found
    ]
    rows += [("median", f"{sizes.megapixels.middle:.2f} megapixels")]
    rows += [("cropped", f"{percent(crops.mean)} on average; more than 10 %: {crops.over_tenth:,}")]
    aspects = _bars([(aspect.name, aspect.pictures) for aspect in facts.aspects])
    worst = [
        f"{percent(crop.cropped)} {text(crop.name)} ({crop.width} x {crop.height} at {crop.bucket})"
        for crop in crops.worst
    ]
    return _section("Sizes", f"{_facts(rows)}<h3>Aspect ratios</h3>{aspects}{_list('cropped most', worst)}")


def _captions(facts: Inspection) -> str:
    captions = facts.captions
    rows = []
    if captions.present:
        rows += [
            ("words", spread_text(captions.words, "words")),
            ("characters", spread_text(captions.characters, "characters")),
        ]
    rows += [("tokens", text(token_text(found))) for found in captions.tokens]
    if captions.present and not captions.tokens:
        rows.append(("tokens", "not counted: no tokenizer was named"))
    rows += [
        (
            "trigger",
            f"{text(found.word)}: written in {found.captions_with:,}, put in front of {found.captions_without:,}",
        )
        for found in captions.triggers
    ]
    lists = [
        f"<h3>{title}</h3>{_bars([(text(shortened(count.text)), count.pictures) for count in counts[:12]])}"
        for title, counts in (("Common phrases", captions.common_phrases), ("Common words", captions.common_words))
        if counts
    ]
    return _section("Captions", _facts(rows) + "".join(lists))


def _bucket_table(facts: Inspection) -> str:
    """How many samples and batches every bucket has."""
    most = max((bucket.share for bucket in facts.buckets), default=1)
    rows = []
    for bucket in facts.buckets:
        short = " short" if bucket.last_batch < bucket.batch_size else ""
        rows.append(
            f'<tr><td><a href="#b{_anchor(bucket)}">{bucket.name}</a></td><td class="n">{bucket.samples:,}</td>'
            f'<td class="n">{percent(bucket.share)}</td><td class="n">{bucket.batches:,}</td>'
            f'<td class="n{short}">{bucket.last_batch}/{bucket.batch_size}</td>'
            f'<td class="bar"><i style="width:{100 * bucket.share / most:.1f}%"></i></td></tr>'
        )
    head = (
        '<tr><th>size</th><th class="n">samples</th><th class="n">share</th><th class="n">batches</th>'
        '<th class="n">last batch</th><th></th></tr>'
    )
    at = ", ".join(map(str, facts.resolutions))
    note = f'<p class="soft">Resolution {at}; sides are multiples of {facts.divisor}.</p>'
    return _section("Buckets", f'{note}<div class="scroll"><table>{head}{"".join(rows)}</table></div>')


def _buckets(facts: Inspection, made: dict[Picture, str], per_bucket: int) -> str:
    """Pictures of every bucket with what is cut off."""
    parts = []
    for bucket in facts.buckets:
        examples = bucket.examples[:per_bucket]
        more = bucket.pictures - len(examples)
        figures = "".join(_example(example, made) for example in examples)
        count = several(bucket.pictures, "picture")
        title = f'<h3 id="b{_anchor(bucket)}">{bucket.name}<small>{count}</small></h3>'
        rest = f'<p class="more">and {more:,} more</p>' if more else ""
        grid = f'<div class="grid">{figures}</div>'
        parts.append(f'<div class="bucket" style="--n:{len(examples)}">{title}{grid}{rest}</div>')
    note = '<p class="soft">Dark parts are cut off. A click on a name shows the caption.</p>'
    return _section("Pictures", f'{note}<div class="buckets">{"".join(parts)}</div>') if parts else ""


def _example(example: Example, made: dict[Picture, str]) -> str:
    picture = example.picture
    caption = f"<p>{text(example.caption)}</p>" if example.caption else '<p class="short">no caption</p>'
    cut = f", {percent(example.cropped)} cut off" if example.cropped else ""
    under = (
        f"<details><summary>{text(picture.name)}</summary><p>{picture.width} x {picture.height}{cut}</p>"
        f"{caption}</details>"
    )
    return f"<figure>{_image(made.get(picture, ''), example.box)}{under}</figure>"


def _image(address: str, box: Box = (0, 0, 1, 1)) -> str:
    """A thumbnail; what the box leaves out is darkened."""
    if not address:
        return ""
    left, top, right, bottom = box
    frame = ""
    if box != (0, 0, 1, 1):
        place = f"left:{left:.2%};top:{top:.2%};width:{right - left:.2%};height:{bottom - top:.2%}"
        frame = f'<i style="{place}"></i>'
    image = f'<img src="{address}" alt="" loading="lazy" decoding="async">'
    return f'<div class="frame"><span class="seen">{image}{frame}</span></div>'


def _groups(facts: Inspection) -> list[list[tuple[Picture, str]]]:
    """Groups of duplicates that are shown: pictures and what is said under each."""
    exact = [list(zip(group, ["", *["identical"] * len(group)], strict=False)) for group in facts.exact_duplicates]
    near = [
        [
            (one.picture, f"{one.distance} of 64 bits of the look differ" if place else "")
            for place, one in enumerate(group)
        ]
        for group in facts.near_duplicates
    ]
    return [*exact[: MOST_GROUPS // 2], *near[: MOST_GROUPS - min(len(exact), MOST_GROUPS // 2)]]


def _duplicates(facts: Inspection, made: dict[Picture, str]) -> str:
    groups = _groups(facts)
    if not groups:
        return ""
    parts = []
    for group in groups:
        figures = "".join(
            f"<figure>{_image(made.get(picture, ''))}{text(picture.name)}<p>{picture.width} x {picture.height}"
            f"{'; ' + remark if remark else ''}</p></figure>"
            for picture, remark in group[:MOST_OF_GROUP]
        )
        more = len(group) - MOST_OF_GROUP
        rest = f'<p class="more">and {more:,} more</p>' if more > 0 else ""
        parts.append(f'<div class="group"><div class="grid">{figures}</div>{rest}</div>')
    more = len(facts.exact_duplicates) + len(facts.near_duplicates) - len(groups)
    rest = f'<p class="more">and {several(more, "group")} more</p>' if more else ""
    return _section("Duplicates", f'<div class="groups">{"".join(parts)}</div>{rest}')


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in rows)}</dl>"


def _bars(rows: Sequence[tuple[str, int]]) -> str:
    """Names (safe already), numbers and bars."""
    most = max((count for _, count in rows), default=1)
    lines = [
        f'<tr><td>{name}</td><td class="n">{count:,}</td>'
        f'<td class="bar"><i style="width:{100 * count / most:.1f}%"></i></td></tr>'
        for name, count in rows
    ]
    return f"<table>{''.join(lines)}</table>"


def _anchor(bucket: BucketFacts) -> str:
    return f"{bucket.name}-{bucket.batch_size}"
