"""The keys of the captioners that come with aitk, and of the processes that run any captioner."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from toolkit.config.plugins import CaptionerPlugin, ProcessPlugin, Remarked, WritingCaptioner, chosen
from toolkit.config.preflight import HUB_NAME, why_not_written
from toolkit.config.section import idle, works
from toolkit.config.sections.values import Device

FLORENCE_TASKS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>", "<OCR>")
DESCRIBE = (
    "Describe this image in one or two plain sentences for training an image generator: the subject first, then its "
    "surroundings, colors, light and style. Answer with the description only."
)


class Blip(WritingCaptioner):
    """BLIP (Li et al., 2022): short sentences, small enough for the CPU."""

    type: Literal["blip"] = "blip"
    model_name_or_path: str = works("Salesforce/blip-image-captioning-base", "Folder or Hub name of a BLIP captioner.")
    caption_prompt: str = works("", "How each caption begins, e.g. `a photo of`; it is a part of the caption.")

    def build(self, context: Any) -> Any:
        """BLIP, loaded."""
        from extensions_built_in.captioners.blip import BlipCaptioner

        return BlipCaptioner.load(context, self)


class Blip2(WritingCaptioner):
    """BLIP-2 (Li et al., 2023), with OPT or Flan-T5 as its language model."""

    type: Literal["blip2"] = "blip2"
    model_name_or_path: str = works("Salesforce/blip2-opt-2.7b", "Folder or Hub name of a BLIP-2.")
    caption_prompt: str = works("", "A beginning (`a photo of`) or a question (`Question: ...? Answer:`).")

    def build(self, context: Any) -> Any:
        """BLIP-2, loaded."""
        from extensions_built_in.captioners.blip2 import Blip2Captioner

        return Blip2Captioner.load(context, self)


class Florence2(WritingCaptioner):
    """Florence-2 (Xiao et al., 2023), as transformers has it."""

    type: Literal["florence2"] = "florence2"
    model_name_or_path: str = works(
        "florence-community/Florence-2-base", "Folder or Hub name of a Florence-2 in the format of transformers."
    )
    caption_prompt: str = works("<MORE_DETAILED_CAPTION>", f"The task: {', '.join(FLORENCE_TASKS)}, or words.")
    max_res: int = works(768, "Pictures with more than max_res x max_res pixels are scaled down to about that.", ge=16)

    def contradictions(self) -> Iterator[Remarked]:
        """A task that gives no caption."""
        yield from super().contradictions()
        if self.caption_prompt.startswith("<") and self.caption_prompt not in FLORENCE_TASKS:
            yield ("caption_prompt",), f"{self.caption_prompt} gives no caption (known: {', '.join(FLORENCE_TASKS)})"

    def build(self, context: Any) -> Any:
        """Florence-2, loaded."""
        from extensions_built_in.captioners.florence2 import FlorenceCaptioner

        return FlorenceCaptioner.load(context, self)


class QwenVl(WritingCaptioner):
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL: follow instructions, and look at pictures in any size."""

    type: Literal["qwen_vl"] = "qwen_vl"
    model_name_or_path: str = works("Qwen/Qwen3-VL-4B-Instruct", "Folder or Hub name of a Qwen-VL.")
    caption_prompt: str = works(DESCRIBE, "What the model is asked.")
    thinking: bool = works(False, "Let models think first that can; their thoughts are no part of the caption.")

    def build(self, context: Any) -> Any:
        """The Qwen-VL, loaded."""
        from extensions_built_in.captioners.qwen_vl import QwenCaptioner

        return QwenCaptioner.load(context, self)


class Llava(WritingCaptioner):
    """LLaVA 1.5 and what has its format, such as JoyCaption."""

    type: Literal["llava"] = "llava"
    model_name_or_path: str = works("llava-hf/llava-1.5-7b-hf", "Folder or Hub name of a LLaVA.")
    caption_prompt: str = works(DESCRIBE, "What the model is asked.")

    def build(self, context: Any) -> Any:
        """The LLaVA, loaded."""
        from extensions_built_in.captioners.llava import LlavaCaptioner

        return LlavaCaptioner.load(context, self)


class WdTagger(CaptionerPlugin):
    """Tags instead of sentences: a classifier with many answers and their names in selected_tags.csv."""

    type: Literal["wd_tagger"] = "wd_tagger"
    model_name_or_path: str = works(
        "SmilingWolf/wd-swinv2-tagger-v3",
        "Folder or Hub name of a classifier with selected_tags.csv; checkpoints of timm need `pip install timm`.",
    )
    max_res: int = works(1024, "Pictures with more than max_res x max_res pixels are scaled down to about that.", ge=16)
    general_threshold: float = works(0.35, "aitk only. General tags from this probability on.", ge=0, le=1)
    character_threshold: float = works(0.85, "aitk only. Names of characters from this probability on.", ge=0, le=1)
    rating: bool = works(False, "aitk only. Begin with the likeliest rating.")
    replace_underscores: bool = works(True, "aitk only. Write spaces for underscores, but in faces such as ^_^.")
    exclude_tags: list[str] = works([], "aitk only. Tags that are never written.")
    max_tags: int | None = works(None, "aitk only. At most so many tags, the likeliest.", ge=1)
    separator: str = works(", ", "aitk only. What stands between tags.")
    channel_order: Literal["auto", "rgb", "bgr"] = works(
        "auto", "aitk only. Order of the colors that the model was trained on; auto: bgr for checkpoints of timm."
    )

    def build(self, context: Any) -> Any:
        """The tagger, loaded."""
        from extensions_built_in.captioners.wd_tagger import Tagger

        return Tagger.load(context, self)


class WriteCaptions(ProcessPlugin):
    """Write a caption for every picture of a folder that has none."""

    jobs: ClassVar[tuple[str, ...]] = ("extension", "caption")
    shares_out: ClassVar[bool] = True

    training_folder: str = works("output", "The log goes to `<training_folder>/<name>`.", min_length=1)
    device: Device = works("auto", "auto, cpu, mps, cuda, or one GPU such as `cuda:1`.")
    caption: Annotated[CaptionerPlugin, chosen("captioners", by="type")] = works(..., "Which captioner, on what.")
    sqlite_db_path: str | None = idle(None, "there is no database; runs are files", ui="./aitk_db.db")

    def preflight(self) -> Iterator[Remarked]:
        """Pictures or a model that are not there, a folder that cannot be."""
        if text := why_not_written(Path(self.training_folder).expanduser()):
            yield ("training_folder",), text
        place, name = self.caption.location, self.caption.model_name_or_path
        if not place.exists():
            yield ("caption", "path_to_caption"), f"there is no file or folder {place}"
        model = Path(name).expanduser()
        # a captioner that has no model leaves the name empty
        if name and not model.is_dir() and (model.is_file() or not HUB_NAME.match(name)):
            yield ("caption", "model_name_or_path"), f"'{name}' is neither a folder nor a name of the Hugging Face Hub"

    def plan(self) -> list[str]:
        """What would be done; the folder is read, the model is not."""
        from extensions_built_in.captioners.listing import list_pictures

        caption = self.caption
        lines = [f"captioner: {caption.type}, {caption.model_name_or_path}"]
        if not caption.location.exists():
            return [*lines, f"pictures: {caption.location} is missing"]
        listing = list_pictures(caption)
        return [*lines, *listing.describe(), *(f"  {listing.name(path)}" for path in listing.todo[:10])]

    def filled(self) -> list[Path]:
        """The pictures have their captions beside them."""
        return [self.caption.location]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.captioners.process import CaptionProcess

        return CaptionProcess(self, job)


class Qwen3VLCaptioner(WriteCaptions):
    """The same under the name that ai-toolkit has, where the captioner need not be named."""

    caption: QwenVl = works(..., "What is captioned, and how.")
