"""The facts of an inspection, from real files with every kind of problem."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.bucket import bucket_for, lost
from toolkit.data.datasets import Pictures, read_datasets
from toolkit.data.inspect import Inspection, inspect_folder, inspect_items
from toolkit.data.inspect.facts import Picture
from toolkit.data.inspect.page import make_page

TINY = Path(__file__).resolve().parents[3] / "toolkit" / "assets" / "tiny-flux"


def photo(width: int, height: int, seed: int) -> Image.Image:
    """Something with soft shapes and a little grain, like a photograph."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 255, (6, 7, 3), dtype=np.uint8)).resize((width, height), 3)
    grain = rng.integers(-12, 12, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(soft).astype(int) + grain, 0, 255).astype(np.uint8))


def write(folder: Path, name: str, caption: str | None = None, size: tuple[int, int] = (96, 64), seed: int = 0) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    photo(*size, seed or sum(name.encode())).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Broken and odd files beside good ones."""
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder, "a.png", "a cat, red, sofa")
    write(folder, "b.png", "m1k4 a cat, red", (64, 64))
    write(folder, "sub/c.jpg", "a dog", (60, 180))
    write(folder, "blank.png", " \n")
    write(folder, "bare.png")
    write(folder, "latin.png")
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "lone.txt").write_text("nobody")
    (folder / "<b>.png").write_bytes(b"no picture")
    (folder / "empty.webp").write_bytes(b"")
    whole = (folder / "sub" / "c.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.txt").write_text("a dog")
    (folder / "notes.pdf").write_bytes(b"x")
    return folder


def names(pictures: tuple[Picture, ...]) -> list[str]:
    return [picture.name for picture in pictures]


def test_files_are_counted_by_what_they_are(mixed: Path) -> None:
    found = inspect_folder(mixed, (64,))
    assert (found.pictures, found.videos, found.samples) == (7, 0, 7)
    source = found.sources[0]
    assert source.other_files == {".pdf": 1}
    assert source.lone_captions == ("lone.txt",)
    assert source.captions == found.captions.present == 4


def test_broken_files_are_named_with_the_reason_and_where_it_was_found(mixed: Path) -> None:
    found = {broken.name: (broken.reason, broken.found_in) for broken in inspect_folder(mixed, (64,)).broken}
    assert set(found) == {"<b>.png", "empty.webp", "cut.jpg"}
    assert found["empty.webp"] == ("empty file", "header")
    assert found["<b>.png"] == ("not an image that can be read", "header")
    assert found["cut.jpg"][1] == "pixels" and "truncated" in found["cut.jpg"][0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_broken_and_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert [(found.name, found.reason) for found in inspect_folder(tmp_path, (64,)).broken] == [
        ("pipe.jpg", "not a regular file")
    ]


def test_a_caption_whose_ending_is_in_capitals_is_told(tmp_path: Path) -> None:
    write(tmp_path, "A.png")
    (tmp_path / "A.TXT").write_text("not read")
    found = inspect_folder(tmp_path, (64,))
    assert found.captions.missing == ("A.png",) and found.sources[0].lone_captions == ("A.TXT",)


def test_without_pixels_only_headers_are_judged(mixed: Path) -> None:
    found = inspect_folder(mixed, (64,), pixels=False)
    assert {broken.name for broken in found.broken} == {"<b>.png", "empty.webp"}
    assert not found.pixels_read and not found.near_duplicates


def test_missing_empty_and_unreadable_captions_are_told_apart(mixed: Path) -> None:
    captions = inspect_folder(mixed, (64,)).captions
    assert captions.missing == ("bare.png",)
    assert captions.empty == ("blank.png",)
    assert [found.name for found in captions.unreadable] == ["latin.png"]
    assert "not UTF-8 (byte 3)" in captions.unreadable[0].reason


def test_captions_are_measured(mixed: Path) -> None:
    captions = inspect_folder(mixed, (64,), trigger="m1k4").captions
    assert (captions.words.least, captions.words.most, captions.characters.most) == (2, 4, 16)
    assert [(count.text, count.pictures) for count in captions.common_phrases] == [("a dog", 2), ("red", 2)]
    assert ("cat", 2) in [(count.text, count.pictures) for count in captions.common_words]
    assert [(same.text, same.names) for same in captions.duplicates] == [("a dog", ("cut.jpg", "sub/c.jpg"))]
    trigger = captions.triggers[0]
    assert (trigger.word, trigger.captions_with, trigger.captions_without) == ("m1k4", 1, 6)


def test_a_word_that_only_contains_the_trigger_is_not_it(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "a category")
    write(tmp_path, "b.png", "a photo of [trigger]")
    write(tmp_path, "c.png", "[name] on a sofa")
    trigger = inspect_folder(tmp_path, (64,), trigger="cat").captions.triggers[0]
    assert (trigger.captions_with, trigger.captions_without) == (2, 1)


def test_tokens_are_those_of_the_tokenizer_and_its_limit(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    texts = {"long.png": "a red circle " * 30, "short.png": "a cat"}
    for name, text in texts.items():
        write(tmp_path, name, text)
    assert inspect_folder(tmp_path, (64,)).captions.tokens == ()
    facts = inspect_folder(tmp_path, (64,), tokenizer=TINY).captions.tokens
    assert [found.tokenizer for found in facts] == ["tokenizer", "tokenizer_2"]
    for found in facts:
        known = AutoTokenizer.from_pretrained(TINY / found.tokenizer)
        counts = sorted(len(known(text.strip()).input_ids) for text in texts.values())
        assert (found.tokens.least, found.tokens.most) == (counts[0], counts[1])
        assert found.limit == known.model_max_length and found.too_long == ("long.png",)


def test_a_file_that_cuts_and_pads_counts_whole_texts(tmp_path: Path) -> None:
    """As the files of published models do."""
    shutil.copytree(TINY / "tokenizer", tmp_path / "cutting")
    file = tmp_path / "cutting" / "tokenizer.json"
    rules = json.loads(file.read_text(encoding="utf-8"))
    rules["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    rules["padding"] = {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    file.write_text(json.dumps(rules), encoding="utf-8")
    write(tmp_path, "long.png", "a red circle " * 30)
    write(tmp_path, "short.png", "a")
    whole = inspect_folder(tmp_path, (64,), tokenizer=TINY / "tokenizer").captions.tokens[0].tokens
    assert inspect_folder(tmp_path, (64,), tokenizer=tmp_path / "cutting").captions.tokens[0].tokens == whole
    assert whole.least < 8 < whole.most


def test_a_vocabulary_without_a_fast_file_is_counted_alike(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "c", "at</w>", "a", "t</w>"]
    (old / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (old / "merges.txt").write_text("#version: 0.2\na t</w>\n")
    (old / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer", "model_max_length": 5}')
    write(tmp_path, "x.png", "a cat a cat")
    tokens = inspect_folder(tmp_path, (64,), tokenizer=old).captions.tokens[0]
    assert (tokens.limit, tokens.tokens.most, tokens.too_long) == (5, 8, ("x.png",))


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "x.png")
    with pytest.raises(ValueError, match="no tokenizer found"):
        inspect_folder(tmp_path, (64,), tokenizer=tmp_path)


def test_buckets_are_those_of_training(mixed: Path) -> None:
    section = DatasetSection.model_validate({"folder_path": str(mixed), "resolution": [64, 32], "num_repeats": 3})
    items = read_datasets([section], 16, 4, None)
    found = inspect_items(items, [section], 16)
    trained = {item.record.name: item.text(0, 0) for item in items}
    assert len(set(trained.values())) == 4
    assert {bucket.name: bucket.samples for bucket in found.buckets} == items.buckets
    assert sum(bucket.samples for bucket in found.buckets) == len(items) == found.samples
    for bucket in found.buckets:
        assert bucket.batches == -(-bucket.samples // 4)
        assert bucket.last_batch == (bucket.samples - 1) % 4 + 1
        assert bucket.pictures == bucket.samples // 3
        for example in bucket.examples:
            assert example.caption == trained[example.picture.name]
            assert (bucket.width, bucket.height) in {
                bucket_for(example.picture.width, example.picture.height, size, 16) for size in (64, 32)
            }
    assert sum(bucket.share for bucket in found.buckets) == pytest.approx(1, abs=0.001)


def test_crops_name_the_worst_first(tmp_path: Path) -> None:
    write(tmp_path, "exact.png", size=(64, 64))
    write(tmp_path, "bad.png", size=(64, 40))
    write(tmp_path, "worse.png", size=(64, 24))
    crops = inspect_folder(tmp_path, (64,)).crops
    shares = {name: lost(*size, bucket_for(*size, 64, 16)) for name, size in (("bad", (64, 40)), ("worse", (64, 24)))}
    assert all(shares.values())
    ranked = sorted(shares, key=lambda name: -shares[name])
    assert [crop.name for crop in crops.worst] == [f"{name}.png" for name in ranked]
    assert [crop.cropped for crop in crops.worst] == [round(shares[name], 4) for name in ranked]
    assert crops.mean == pytest.approx(sum(shares.values()) / 3, abs=1e-4)
    assert crops.over_tenth == sum(share > 0.1 for share in shares.values())


def test_sizes_and_aspects(tmp_path: Path) -> None:
    write(tmp_path, "small.png", size=(32, 32))
    write(tmp_path, "middle.png", size=(96, 64))
    write(tmp_path, "large.png", size=(160, 90))
    found = inspect_folder(tmp_path, (64,))
    assert found.sizes.smallest and found.sizes.smallest.name == "small.png"
    assert found.sizes.largest and found.sizes.largest.name == "large.png"
    assert found.sizes.megapixels.middle == pytest.approx(96 * 64 / 1e6, abs=1e-4)
    assert names(found.sizes.small) == ["small.png"]
    assert [(aspect.name, aspect.pictures) for aspect in found.aspects] == [("1:1", 1), ("3:2", 1), ("16:9", 1)]


def test_filters_leave_pictures_out_by_name(tmp_path: Path) -> None:
    write(tmp_path, "small.png", size=(32, 32))
    write(tmp_path, "large.png", size=(96, 64))
    section = DatasetSection.model_validate({"folder_path": str(tmp_path), "resolution": 64, "min_resolution": 50})
    found = inspect_items(read_datasets([section], 16, 1, None), [section], 16)
    assert [(one.name, one.width, one.height) for one in found.filtered] == [("small.png", 32, 32)]
    assert found.pictures == 1 and not found.broken


def test_references_inside_the_folder_are_not_taken_for_pictures(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    write(tmp_path, "before/a.png", "no caption of a picture")
    values = {"folder_path": str(tmp_path), "resolution": 64, "control_path": str(tmp_path / "before")}
    section = DatasetSection.model_validate(values)
    items = read_datasets([section], 16, 1, None, taken=Pictures(references="tokens"))
    found = inspect_items(items, [section], 16)
    assert (found.pictures, found.filtered, found.sources[0].lone_captions) == (1, (), ())


def write_deep(path: Path) -> None:
    """A PNG of 64 x 64 with 16 bits for each of red, green and blue."""
    rows = b"".join(b"\0" + bytes(range(128)) * 3 for _ in range(64))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def test_what_headers_tell_is_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(96, 64, 1).save(tmp_path / "turned.jpg", exif=exif)
    photo(64, 64, 2).convert("CMYK").save(tmp_path / "cmyk.jpg")
    photo(64, 64, 3).convert("RGBA").save(tmp_path / "clear.png")
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(tmp_path / "deep.png")
    write_deep(tmp_path / "deeper.png")
    photo(64, 64, 4).save(tmp_path / "lie.png", format="JPEG")
    frames = [photo(64, 64, seed) for seed in (5, 6)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    notes = {note.text: note.names for note in inspect_folder(tmp_path, (64,)).notes}
    assert notes["turned upright by EXIF"] == ("turned.jpg",)
    assert notes["CMYK: turned into RGB"] == ("cmyk.jpg",)
    assert notes["transparent: composited on the background"] == ("clear.png",)
    assert notes["16 bits per channel: scaled to 8"] == ("deep.png", "deeper.png")
    assert notes["the name says .png, the content is JPEG"] == ("lie.png",)
    assert notes["animated: the first frame is trained"] == ("moving.webp",)


def test_two_sets_are_told_apart_and_one_folder_twice_is_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        write(folder, "a.png", "a cat", seed=3)
    small = {"folder_path": str(one), "resolution": 32}
    values = [{"folder_path": str(one), "resolution": 64}, small, {"folder_path": str(two), "resolution": 64}]
    sections = [DatasetSection.model_validate(value) for value in values]
    found = inspect_items(read_datasets(sections, 16, 1, None), sections, 16)
    assert (found.pictures, found.samples, found.resolutions) == (2, 3, (32, 64))
    assert [names(group) for group in found.exact_duplicates] == [[f"{one}/a.png", f"{two}/a.png"]]
    assert [source.place for source in found.sources] == [str(one), str(two)]
    again = inspect_items(read_datasets(sections[:2], 16, 1, None), sections[:2], 16)
    assert again.pictures == 1 and not again.exact_duplicates
    assert again.sizes.largest and again.sizes.largest.name == "a.png"


def test_a_metadata_file_is_a_source_too(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    rows = [{"file_name": "a.png", "caption": "a cat"}, {"file_name": "gone.png", "caption": "a dog"}]
    (tmp_path / "meta.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = inspect_folder(tmp_path / "meta.jsonl", (64,))
    assert (found.pictures, found.captions.present, len(found.broken)) == (1, 1, 1)
    assert "gone.png" in found.broken[0].name + found.broken[0].reason


def test_json_is_whole_and_the_same_every_time(mixed: Path) -> None:
    found = inspect_folder(mixed, (64, 32), trigger="m1k4", tokenizer=TINY)
    facts = json.loads(found.to_json())
    assert set(facts) == set(Inspection.__dataclass_fields__)
    assert facts["format"] == 1 and facts["pictures"] == 7
    assert {broken["name"] for broken in facts["broken"]} == {"<b>.png", "empty.webp", "cut.jpg"}
    example = facts["buckets"][0]["examples"][0]
    assert set(example) == {"picture", "box", "cropped", "caption"}
    assert inspect_folder(mixed, (64, 32), trigger="m1k4", tokenizer=TINY).to_json() == found.to_json()


def test_what_is_no_data_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing"):
        inspect_folder(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no image found"):
        inspect_folder(tmp_path)


def test_pictures_in_a_tar_are_looked_into(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "a cat", (320, 240), seed=1)
    write(tmp_path, "b.jpg", "a dog", (320, 240), seed=2)
    Image.open(tmp_path / "a.jpg").resize((160, 120)).save(tmp_path / "c.png")
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("a.jpg", "a.txt", "b.jpg", "b.txt", "c.png"):
            tar.add(tmp_path / name, name)
    found = inspect_folder(shard, (64,))
    assert (found.pictures, found.captions.present, found.broken) == (3, 2, ())
    near = [[Path(one.picture.name).name for one in group] for group in found.near_duplicates]
    assert near == [["a.jpg", "c.png"]]
    assert make_page(found).count("<img") == 5


def test_videos_are_read_if_frames_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "still.png", size=(64, 64))
    frames = [photo(64, 64, seed) for seed in range(6)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    assert (lambda found: (found.pictures, found.videos))(inspect_folder(tmp_path, (64,))) == (2, 0)
    found = inspect_folder(tmp_path, (64,), num_frames=3)
    assert (found.pictures, found.videos) == (1, 1)
    assert {bucket.name for bucket in found.buckets} == {"64x64", "64x64x3"}
    assert make_page(found).count("<img") == 2
