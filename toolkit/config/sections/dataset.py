"""`datasets[]`: one folder of pictures and captions, and what is done to them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from toolkit.config.section import Remarked, Section, idle, planned, works

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".avif"})
ANIMATION_ENDINGS = frozenset({".gif"})
VIDEO_ENDINGS = frozenset({".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v", ".wmv", ".flv"})
CACHE_FOLDERS = frozenset({"_controls", "_latent_cache", "_t_e_cache", "_clip_vision_cache"})
"""Folders that ai-toolkit puts beside the pictures; what is in them is no part of the data set."""
Side = Annotated[int, Field(ge=16)]
Channel = Annotated[int, Field(ge=0, le=255)]


class DatasetSection(Section):
    """`datasets[]`."""

    folder_path: str | None = works(None, "Folder with pictures and captions; sub-folders are read too.")
    dataset_path: str | None = works(None, "The same by another name; wins over `folder_path`.")
    type: Literal["image"] = works("image", "Kind of data; image is the only one.")
    batch_size: int | None = works(None, "Batch size of this set; default: `train.batch_size`.", ge=1)
    strict: bool = works(False, "aitk only. Stop at an unreadable picture instead of leaving it out.")
    num_repeats: int = works(1, "How often each picture is seen per epoch.", ge=1)
    loss_multiplier: float = works(1.0, "Weight of this set in the loss.", ge=0)

    resolution: Side | list[Side] = works(
        512,
        "Pictures are scaled down to about resolution x resolution pixels; a list trains each picture at each size.",
    )
    scale: float = works(1.0, "Factor of the picture's size before `resolution` applies.", gt=0)
    buckets: bool = planned(True, "Keep the aspect ratio: batches are made of pictures of equal size.")
    bucket_tolerance: int = idle(64, "the model decides the step of the sizes")
    square_crop: bool = works(False, "Scale the short side to `resolution` and crop the middle square.")
    random_crop: bool = works(False, "Crop at a random place instead of the middle.")
    random_scale: bool = planned(False, "Scale by a random factor.")
    flip_x: bool = works(False, "Add a copy of each picture, mirrored left to right.")
    flip_y: bool = works(False, "Add a copy of each picture, upside down.")
    background: tuple[Channel, Channel, Channel] = works(
        (255, 255, 255), "aitk only. Color [red, green, blue] behind transparent pictures."
    )
    augments: list[Any] = planned([], "Names of augmentations.")
    augmentations: list[Any] | None = planned(None, "albumentations steps.")
    shuffle_augmentations: bool = planned(False, "Change the order of augmentations.", needs="augmentations")
    replay_transforms: bool = planned(True, "Repeat augmentations on controls.", needs="augmentations")
    standardize_images: bool = planned(False, "Normalize mean and deviation of pictures.")

    caption_ext: str = works(
        ".txt", "Ending of caption files, with or without dot; `filename` takes the caption from the picture's name."
    )
    caption_type: str | None = works(None, "Old name of `caption_ext`.")
    default_caption: str | None = works(None, "Caption of pictures without one.")
    trigger_word: str | None = works(None, "Put before captions that lack it; default: the process's trigger_word.")
    random_triggers: str | list[str] = works([], "Words (or a file with one per line) of which some are added.")
    random_triggers_max: int = works(1, "At most so many of them per caption.", ge=1)
    caption_dropout_rate: float = works(0.0, "Chance that a picture is trained with an empty caption.", ge=0, le=1)
    token_dropout_rate: float = works(
        0.0, "Chance that each comma-separated part of a caption is left out.", ge=0, le=1
    )
    shuffle_tokens: bool = works(False, "Shuffle the comma-separated parts of captions.")
    keep_tokens: int = works(0, "The first parts that are never shuffled or left out.", ge=0)
    use_short_captions: bool = planned(False, "Use caption_short of a JSON data set.")
    replacements: list[Any] = planned([], "Replacements in captions.")

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
    cache_tensors_to_disk: bool = planned(False, "Cache decoded pixels.")
    cache_clip_vision_to_disk: bool = planned(False, "Cache embeddings of CLIP images.")
    cache_latents_num_workers: int | None = idle(None, "pictures are encoded in the main process")
    load_image_when_caching_latents: bool = idle(False, "pictures are not needed once latents are cached")
    num_workers: int = works(2, "Threads that load pictures; the first data set decides for all.", ge=0)
    prefetch_factor: int = works(2, "Batches that each worker keeps ready.", ge=1)
    fast_image_size: bool = idle(False, "sizes are always read from headers", ui=True)

    is_reg: bool = planned(False, "Regularization pictures.")
    prior_reg: bool = planned(False, "Train these pictures toward the prediction of the frozen model.")
    network_weight: float = planned(1.0, "Strength of the network on this set.")
    extra_values: list[float] = planned([], "Values for a single_value adapter.")
    controls: str | list[str] = planned([], "Controls that are made: depth, line, pose, inpaint, mask.")
    mask_path: str | None = planned(None, "Masks: white is trained.")
    alpha_mask: bool = planned(False, "Use the alpha channel as mask.")
    invert_mask: bool = planned(False, "Black is trained.", needs="mask_path")
    mask_min_value: float = idle(0.0, "there is no mask", ui=0.1)
    unconditional_path: str | None = planned(None, "Pictures for guidance pairs.")
    guidance_type: str = planned("targeted", "Kind of guidance for those pairs.", needs="unconditional_path")
    clip_image_path: str | None = planned(None, "Pictures for a vision adapter.")
    clip_image_from_same_folder: bool = planned(False, "Take those from the same folder.")
    clip_image_augmentations: list[Any] | None = planned(None, "Augmentations of those.", needs="clip_image_path")
    clip_image_shuffle_augmentations: bool = planned(False, "Change their order.", needs="clip_image_path")

    do_audio: bool = planned(False, "Video: train sound.")
    audio_preserve_pitch: bool = planned(False, "Keep the pitch.", needs="do_audio")
    audio_normalize: bool = planned(False, "Normalize the loudness.", needs="do_audio")
    diff_output_preservation: bool = planned(False, "Set by `train.diff_output_preservation`.")
    diff_output_preservation_class: str = planned(
        "", "Set by `train.diff_output_preservation_class`.", needs="diff_output_preservation"
    )
    poi: str | None = planned(None, "Removed from ai-toolkit: an error there too.")
    debug: bool = idle(False, "there is nothing more to say")

    @property
    def folder(self) -> Path:
        """The folder, by either name."""
        return Path(self.dataset_path or self.folder_path or "").expanduser()

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

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        if not (self.dataset_path or self.folder_path):
            yield ("folder_path",), "missing; it is required"
        elif self.folder.suffix.lower() in (".json", ".jsonl"):
            key = "dataset_path" if self.dataset_path else "folder_path"
            yield (key,), "a JSON data set is not supported yet; name a folder"
        if self.control_path and (self.control_path_1 or self.control_path_2 or self.control_path_3):
            yield ("control_path",), "cannot be combined with control_path_1 to 3, which are another spelling of it"
        if self.control_from_same_folder and (self.control_folders or self.inpaint_folders):
            other = "control_path" if self.control_folders else "inpaint_path"
            yield ("control_from_same_folder",), f"cannot be combined with {other}"
        if self.square_crop and self.random_crop:
            yield ("random_crop",), "cannot be combined with square_crop, which crops the middle"

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
