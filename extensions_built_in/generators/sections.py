"""`generate` of the generators, `loras[]`: what is made, and how. The keys of ai-toolkit and a few of our own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from toolkit.config.section import Remarked, Section, planned, works
from toolkit.config.sections.sample import Sampler

Side = Annotated[int, Field(ge=16)]
Ending = Annotated[
    Literal["png", "jpg", "jpeg", "webp"],
    # configs of ai-toolkit write .png as well
    BeforeValidator(lambda value: value.removeprefix(".") if isinstance(value, str) else value),
]
AUTO = "; `auto` (aitk only): what the model's own pipeline takes"


class LoraSection(Section):
    """`loras[]`: a network that acts on the model."""

    path: str = works(
        ...,
        "A .safetensors file here or on the Hub (`owner/repository/file.safetensors`), in the keys of any program.",
        min_length=1,
    )
    weight: float = works(1.0, "How strongly it acts; below 0 it acts the other way.")


class MakingSection(Section):
    """The keys that all of them have."""

    sampler: Sampler | None = works(None, "Sampler; default: the one of the checkpoint (ai-toolkit: ddpm).")
    neg: str = works("", "Negative prompt.")
    seed: int = works(-1, "Seed; -1 draws one for every picture.", ge=-1)
    walk_seed: bool = works(False, "Picture i uses seed + i; otherwise all use the same seed.")
    guidance_scale: Annotated[float, Field(ge=0)] | Literal["auto"] = works(
        7.0, f"Guidance scale, in the unit of the family{AUTO}."
    )
    guidance_rescale: float = works(
        0.0, "How far the guided prediction gets its deviation back (0: not at all, 1: fully).", ge=0, le=1
    )
    sample_steps: Annotated[int, Field(ge=1)] | Literal["auto"] = works(20, f"Denoising steps{AUTO}.")
    ext: Ending = works("png", "File format; videos are webp and mp4 files.")
    batch_size: int | None = works(
        None, "aitk only. Pictures that are made at once; default: about a megapixel of them.", ge=1
    )
    compile: bool = works(False, "The same as `model.compile`: minutes at the start for faster steps.")


class GenerateSection(MakingSection):
    """`generate` of `to_folder`."""

    prompts: list[str] | str = works(
        ..., "Prompts, or a text file with one per line; inline flags such as `--w 512 --d 42` are read.", min_length=1
    )
    width: Side | Literal["auto"] = works(512, "Width in pixels; `auto` (aitk only): what the model was made for.")
    height: Side | Literal["auto"] = works(512, "Height in pixels; `auto` (aitk only): what the model was made for.")
    size_list: list[tuple[Side, Side]] = works([], "Sizes [width, height]; each picture gets one of them by chance.")
    prompt_2: str | None = planned(
        None,
        "Another prompt for the second text encoder.",
        why="all text encoders get the same prompt; put what both should read into `prompts`",
    )
    neg_2: str | None = planned(
        None,
        "Another negative prompt for the second text encoder.",
        why="all text encoders get the same negative prompt; put what both should read into `neg`",
    )
    prompt_file: bool = works(False, "Write the prompt into a text file beside each picture.")
    num_repeats: int = works(1, "How often each prompt is made; repeat n uses the seed plus n.", ge=1)
    random_prompts: bool = works(False, "Make prompts of random lines of `prompts`, joined by commas.")
    max_random_per_prompt: int = works(1, "At most so many lines make one of these prompts.", ge=1)
    max_images: int = works(10000, "So many of these prompts are made.", ge=1)
    shuffle: bool = works(False, "Make the prompts in random order.")
    num_frames: int = works(1, "aitk only. Video: number of frames; 1 makes a picture.", ge=1)
    fps: int = works(16, "aitk only. Video: frames per second.", ge=1)
    compare: list[float] = works(
        [], "aitk only. Make each picture with all `loras` at so many times their weights: [0, 0.5, 1]."
    )
    contact_sheet: bool = works(True, "aitk only. Write contact_sheet.png: a row per prompt, a column per weight.")

    @property
    def file(self) -> Path | None:
        """The file with the prompts, if they are in one."""
        return Path(self.prompts).expanduser() if isinstance(self.prompts, str) else None

    def contradictions(self) -> Iterator[Remarked]:
        """Values that say less than is needed."""
        yield from super().contradictions()
        if (self.width == "auto") != (self.height == "auto"):
            yield ("height",), "width and height are both `auto`, or neither is"
        if len(set(self.compare)) < len(self.compare):
            yield ("compare",), "names a weight twice"

    def lines(self) -> list[str]:
        """The prompts as written. Of a file, lines that are empty or begin with # are none. ValueError without one."""
        if isinstance(self.prompts, list):
            return self.prompts
        assert self.file is not None
        try:
            lines = self.file.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            raise ValueError(
                f"there is no file {self.prompts}; a prompt that is not in a file goes into a list: [{self.prompts!r}]"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.prompts} is not readable as UTF-8 text: {error}") from error
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise ValueError(f"{self.prompts} holds no prompt")
        return found


class Img2ImgSection(MakingSection):
    """`generate` of `batch_img2img`."""

    prompts: list[str] = works([], "aitk only. Prompts in the place of the pictures' captions.")
    denoise_strength: float = works(
        0.5, "How much of the picture is given up: near 0 it stays as it is, 1 keeps nothing of it.", ge=0, le=1
    )
    trigger_word: str | None = works(None, "What `[trigger]` in captions stands for.")


class ReferenceSection(MakingSection):
    """`generate` of `reference_generator`."""

    prompts: list[str] = works([], "Prompts in the place of the pictures' captions; each picture is made with each.")
    trigger_word: str | None = works(None, "aitk only. What `[trigger]` in captions stands for.")
    shuffle: bool = works(False, "Make them in random order.")
    prompt_2: str | None = planned(
        None, "Another prompt for the second text encoder.", why="all text encoders get the same prompt"
    )
    neg_2: str | None = planned(None, "Another negative prompt.", why="all text encoders get the same negative prompt")
    t2i_adapter_path: str | None = planned(
        None,
        "T2I-Adapter that sees a depth map of the picture.",
        why="there are no T2I-Adapters; take a model that reads pictures itself, such as flux_kontext, flux_control "
        "or qwen_image_edit",
    )
    adapter_conditioning_scale: float = planned(
        1.0, "Strength of the T2I-Adapter.", why="there are no T2I-Adapters", needs="t2i_adapter_path"
    )
