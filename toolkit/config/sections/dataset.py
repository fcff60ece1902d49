"""`datasets[]`: one folder of pictures and captions, and what is done to them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from toolkit.config.section import Remarked, Section, idle, planned, works
from toolkit.config.sections.augmentation import AugmentationStep

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".avif", ".gif", ".tif", ".tiff"})
ANIMATION_ENDINGS = frozenset({".gif"})
VIDEO_ENDINGS = frozenset({".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v", ".wmv", ".flv"})
SOURCE_ENDINGS = frozenset({".json", ".jsonl", ".csv", ".parquet", ".tar"})
"""Endings of files that are a data set."""
CACHE_FOLDERS = frozenset({"_controls", "_latent_cache", "_t_e_cache", "_clip_vision_cache"})
"""Folders that ai-toolkit puts beside the pictures; what is in them is no part of the data set."""
Side = Annotated[int, Field(ge=16)]
Channel = Annotated[int, Field(ge=0, le=255)]


class DatasetSection(Section):
    """`datasets[]`."""

    folder_path: str | None = works(
        None,
        "Folder with pictures and captions; sub-folders are read too. Or a .json, .jsonl, .csv or .parquet file that "
        "lists pictures, a .tar (`part-{000..012}.tar` for several), or a folder of Hugging Face datasets.",
    )
    dataset_path: str | None = works(None, "The same by another name; wins over `folder_path`.")
    type: Literal["image"] = works("image", "Kind of data; image is the only one.")
    batch_size: int | None = works(None, "Batch size of this set; default: `train.batch_size`.", ge=1)
    strict: bool = works(False, "aitk only. Stop at an unreadable picture instead of leaving it out.")
    image_column: str | None = works(None, "aitk only. Which column of a metadata file names the pictures.")
    caption_column: str | None = works(None, "aitk only. Which column of a metadata file holds the captions.")
    min_resolution: int | None = works(
        None, "aitk only. Leave out pictures with fewer than min_resolution x min_resolution pixels.", ge=1
    )
    max_aspect: float | None = works(
        None, "aitk only. Leave out pictures whose long side is more than so many times the short one.", ge=1
    )
    weight: float = works(
        1.0, "aitk only. How often a sample comes per epoch: 0.5 every second one, drawn anew per epoch.", gt=0
    )
    num_repeats: int = works(1, "How often each picture is seen per epoch.", ge=1)
    loss_multiplier: float = works(1.0, "Weight of this set in the loss.", ge=0)

    resolution: Side | list[Side] = works(
        512,
        "Pictures are scaled down to about resolution x resolution pixels; a list trains each picture at each size.",
    )
    scale: float = works(1.0, "Factor of the picture's size before `resolution` applies.", gt=0)
    buckets: bool = works(
        True, "Keep the aspect ratio: batches are made of pictures of equal size. Off: squares of `resolution`."
    )
    bucket_tolerance: int = idle(64, "the model decides the step of the sizes")
    square_crop: bool = works(False, "Crop the largest square.")
    random_crop: bool = works(False, "Crop at a random place instead of the middle, in every epoch another one.")
    random_scale: bool = works(
        False, "Crop a part of random size too, between all that fits and what needs no scaling."
    )
    flip_x: bool = works(False, "Add a copy of each picture, mirrored left to right.")
    flip_y: bool = works(False, "Add a copy of each picture, upside down.")
    background: tuple[Channel, Channel, Channel] = works(
        (255, 255, 255), "aitk only. Color [red, green, blue] behind transparent pictures."
    )
    augments: list[str] = works(
        [], "Names of albumentations transforms, with their defaults; ColorJitter and RandomEqualize as in ai-toolkit."
    )
    augmentations: list[AugmentationStep] | None = works(
        None, "albumentations transforms `{method, params}`, drawn anew in every epoch; needs aitk[augment]."
    )
    shuffle_augmentations: bool = works(False, "Another order of augmentations for every sample and epoch.")
    replay_transforms: bool = works(
        True, "Move control images and pair pictures as augmentations move the picture; masks always are."
    )
    num_variants: int = works(
        8, "aitk only. Versions of a sample that are cached and take turns, where something about it is random.", ge=1
    )
    standardize_images: bool = planned(
        False,
        "Shift colors to those of the pictures that a model was first trained on.",
        why="the model would learn to paint in the shifted colors; remove it",
    )

    caption_ext: str = works(
        ".txt", "Ending of caption files, with or without dot; `filename` takes the caption from the picture's name."
    )
    caption_type: str | None = works(None, "Old name of `caption_ext`.")
    default_caption: str | None = works(None, "Caption of pictures without one.")
    captions: Literal["use", "prepend", "ignore"] = works(
        "use", "aitk only. `prepend` puts `default_caption` before captions, `ignore` takes it instead of them."
    )
    trigger_word: str | None = works(None, "Put before captions that lack it; default: the process's trigger_word.")
    random_triggers: str | list[str] = works([], "Words (or a file with one per line) of which some are added.")
    random_triggers_max: int = works(1, "At most so many of them per caption.", ge=1)
    caption_dropout_rate: float = works(0.0, "Chance that a picture is trained with an empty caption.", ge=0, le=1)
    token_dropout_rate: float = works(
        0.0, "Chance that each comma-separated part of a caption is left out.", ge=0, le=1
    )
    shuffle_tokens: bool = works(False, "Shuffle the comma-separated parts of captions.")
    keep_tokens: int = works(0, "The first parts that are never shuffled or left out.", ge=0)
    use_short_captions: bool = works(False, "Use `caption_short` of a metadata file, where there is one.")
    replacements: list[str] = works([], "`text|other`: text in captions, and what stands in its place.")

    control_path: str | list[str] | None = works(
        None, "Folder of control (reference) images with the names of the pictures; a list for several each."
    )
    control_path_1: str | None = works(None, "First folder of control images; another spelling of `control_path`.")
    control_path_2: str | None = works(None, "Second folder of control images.")
    control_path_3: str | None = works(None, "Third folder of control images.")
    inpaint_path: str | list[str] | None = works(
        None, "Folder of pictures with the same names, whose transparent part is painted in."
    )
    control_from_same_folder: bool = works(False, "Other pictures of the same folder are the control images.")
    num_controls_from_same_folder: int = works(1, "Number of those.", ge=1)
    control_transparent_color: tuple[Channel, Channel, Channel] = works(
        (0, 0, 0), "Color [red, green, blue] behind transparent control images."
    )
    full_size_control_images: bool = works(
        True, "Keep control images at their own size, if the model can; else they are cropped as the picture is."
    )

    num_frames: int = works(1, "Video: number of frames; 1 trains on pictures only.", ge=1)
    shrink_video_to_frames: bool = works(True, "Video: spread the frames over the whole; else take them at `fps`.")
    fps: float = works(24.0, "Video: frames per second that are taken.", gt=0)
    auto_frame_count: bool = works(False, "Video: as many frames as the file has at `fps`.")
    trim_auto_frame_count_tail: bool = works(
        True, "With `auto_frame_count`: leave out an end that the model cannot take; else speed the video up a little."
    )
    do_i2v: bool = works(False, "Video: the first frame is given to the model.")

    cache_latents: bool = works(False, "Encode pictures once and keep the latents in memory.")
    cache_latents_to_disk: bool = works(False, "Encode pictures once and keep the latents on disk, for later runs too.")
    cache_text_embeddings: bool = works(False, "Encode captions once and unload the text encoders.")
    cache_tensors_to_disk: bool = idle(False, "decoded pixels are not kept; cache_latents_to_disk keeps latents")
    cache_clip_vision_to_disk: bool = idle(False, "no trainer here encodes pictures for a vision adapter")
    cache_latents_num_workers: int | None = idle(None, "num_workers decides")
    load_image_when_caching_latents: bool = idle(False, "pictures are not needed once latents are cached")
    num_workers: int = works(2, "Processes that load pictures; the first data set decides for all.", ge=0)
    prefetch_factor: int = works(2, "Batches that each worker keeps ready.", ge=1)
    fast_image_size: bool = idle(False, "sizes are always read from headers", ui=True)

    is_reg: bool = works(
        False, "Regularization pictures: a batch of them after every batch of the others; see `train.reg_weight`."
    )
    prior_reg: bool = works(
        False, "The model without the network says what these pictures teach, so that it stays as it was for them."
    )
    network_weight: float = works(1.0, "Strength of the network while this set is trained.")
    extra_values: list[float] = planned(
        [], "Values for a single_value adapter.", why="there is no adapter here that reads them; remove it"
    )
    controls: str | list[str] = planned(
        [],
        "Controls that are made: depth, line, pose, inpaint, mask.",
        why="make these pictures with a tool of your choice, and name their folder as control_path, inpaint_path "
        "or mask_path",
    )
    mask_path: str | None = works(None, "Folder of gray masks with the names of the pictures: white is trained.")
    alpha_mask: bool = works(False, "The alpha channel of a picture is its mask.")
    invert_mask: bool = works(False, "Black is trained, or what is transparent.")
    mask_min_value: float = works(0.0, "Weight in the loss of what the mask leaves out.", ge=0, le=1)
    unconditional_path: str | None = works(
        None, "Folder of pictures with the same names, from which a trainer for pairs trains away."
    )
    guidance_type: Literal["targeted", "polarity", "targeted_polarity", "direct", "tnt"] = works(
        "targeted", "How a trainer uses these pairs."
    )
    clip_image_path: str | None = works(None, "Folder of pictures with the same names, for a vision adapter.")
    clip_image_from_same_folder: bool = works(False, "Another picture of the same folder is taken for that.")
    clip_image_augmentations: list[AugmentationStep] | None = works(None, "Augmentations of those pictures.")
    clip_image_shuffle_augmentations: bool = works(False, "Another order of these for every sample and epoch.")

    do_audio: bool = planned(
        False, "Video: train sound.", why="there is no model here that makes sound; remove it to train the pictures"
    )
    audio_preserve_pitch: bool = planned(False, "Keep the pitch.", needs="do_audio", why="see do_audio")
    audio_normalize: bool = planned(False, "Normalize the loudness.", needs="do_audio", why="see do_audio")
    diff_output_preservation: bool = idle(False, "train.diff_output_preservation decides for all data sets")
    diff_output_preservation_class: str = works(
        "", "What the trigger word of this set is a kind of; default: `train.diff_output_preservation_class`."
    )
    poi: str | None = planned(
        None, "Removed from ai-toolkit: an error there too.", why="crop the pictures, or name masks as mask_path"
    )
    debug: bool = idle(False, "there is nothing more to say")

    @property
    def folder(self) -> Path:
        """The folder, by either name."""
        return Path(self.dataset_path or self.folder_path or "").expanduser()

    @property
    def is_folder(self) -> bool:
        """Whether it is read as a folder; else as a file that lists pictures or holds them."""
        return self.folder.suffix.lower() not in SOURCE_ENDINGS or self.folder.is_dir()

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Every resolution that is trained, each once."""
        sizes = self.resolution if isinstance(self.resolution, list) else [self.resolution]
        return tuple(dict.fromkeys(sizes))

    @property
    def has_video(self) -> bool:
        """Whether videos are read beside pictures."""
        return self.num_frames > 1 or self.auto_frame_count

    @property
    def endings(self) -> frozenset[str]:
        """Endings of the files that are read."""
        return IMAGE_ENDINGS | ANIMATION_ENDINGS | VIDEO_ENDINGS if self.has_video else IMAGE_ENDINGS

    @property
    def control_folders(self) -> tuple[Path, ...]:
        """Folders of control images, by either name."""
        return _folders(self.control_path, self.control_path_1, self.control_path_2, self.control_path_3)

    @property
    def inpaint_folders(self) -> tuple[Path, ...]:
        """Folders of pictures with transparent parts."""
        return _folders(self.inpaint_path)

    @property
    def matched_folders(self) -> dict[str, tuple[Path, ...]]:
        """The folders of pictures with the names of the data set's own, under the keys that name them."""
        return {
            "control_path": self.control_folders,
            "inpaint_path": self.inpaint_folders,
            "mask_path": _folders(self.mask_path),
            "unconditional_path": _folders(self.unconditional_path),
            "clip_image_path": _folders(self.clip_image_path),
        }

    @property
    def has_mask(self) -> bool:
        """Whether the loss counts more in some places than in others."""
        return bool(self.mask_path) or self.alpha_mask

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        if not (self.dataset_path or self.folder_path):
            yield ("folder_path",), "missing; it is required"
        if self.control_path and (self.control_path_1 or self.control_path_2 or self.control_path_3):
            yield ("control_path",), "cannot be combined with control_path_1 to 3, which are another spelling of it"
        if self.control_from_same_folder and (self.control_folders or self.inpaint_folders):
            other = "control_path" if self.control_folders else "inpaint_path"
            yield ("control_from_same_folder",), f"cannot be combined with {other}"
        if self.captions == "prepend" and not self.default_caption:
            yield ("captions",), "`prepend` needs a default_caption"
        if self.alpha_mask and self.mask_path:
            yield ("alpha_mask",), "cannot be combined with mask_path; a picture has one mask"
        if self.alpha_mask and self.has_video:
            yield ("alpha_mask",), "videos have no alpha channel; name a folder of masks as mask_path"
        if self.clip_image_path and self.clip_image_from_same_folder:
            yield ("clip_image_from_same_folder",), "cannot be combined with clip_image_path"

    @field_validator("replacements")
    @classmethod
    def _check_replacements(cls, value: list[str]) -> list[str]:
        for entry in value:
            if entry.count("|") != 1 or entry.startswith("|"):
                raise ValueError(f"must be `text|other`, not '{entry}'")
        return value

    @field_validator("resolution", mode="before")
    @classmethod
    def _drop_empty(cls, value: Any) -> Any:
        if value == []:
            raise ValueError("the list is empty")
        return value


def _folders(*values: str | list[str] | None) -> tuple[Path, ...]:
    """Paths that are not blank, from single ones and lists."""
    paths = [path for value in values for path in (value if isinstance(value, list) else [value or ""])]
    return tuple(Path(path).expanduser() for path in paths if path)
