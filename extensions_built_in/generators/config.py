"""The processes that make pictures: `to_folder`, `batch_img2img`, `reference_generator`, `pure_lora_generator`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from extensions_built_in.generators.sections import (
    GenerateSection,
    Img2ImgSection,
    LoraSection,
    MakingSection,
    ReferenceSection,
)
from toolkit.config import preflight
from toolkit.config.checks import has_sampler, trained_by
from toolkit.config.plugins import ModelPlugin, ProcessPlugin, Remarked, chosen
from toolkit.config.section import planned, works
from toolkit.config.sections.dataset import DatasetSection
from toolkit.config.sections.sample import SampleSection
from toolkit.config.sections.values import Device, Dtype

if TYPE_CHECKING:
    from extensions_built_in.generators.orders import Order
    from toolkit.models.family import Family


class GeneratorPlugin(ProcessPlugin):
    """A process that fills a folder with pictures; extensions_built_in/generators/process.py does what it says."""

    jobs: ClassVar[tuple[str, ...]] = ("generate", "extension")
    shares_out: ClassVar[bool] = True
    making_key: ClassVar[str] = "generate"
    """The key that `making` comes from."""

    output_folder: str = works(..., "Where the pictures go.", min_length=1)
    device: Device = works("auto", "auto, cpu, mps, cuda, or one GPU such as `cuda:1`.")
    model: Annotated[ModelPlugin, chosen("models", by="arch")] = works(..., "What makes the pictures.")
    dtype: Dtype | None = works(
        None, "Precision of the computation; default: fp32 on the CPU, else bf16 (ai-toolkit: float16)."
    )
    loras: list[LoraSection] = works([], "aitk only. Networks that act on the model, all at once.")

    @property
    @abstractmethod
    def making(self) -> Any:
        """The section that says how pictures are made."""

    @property
    def destination(self) -> Path:
        """The folder of the pictures."""
        return Path(self.output_folder).expanduser()

    @property
    def sources(self) -> Sequence[DatasetSection]:
        """The data sets that pictures are read from."""
        return ()

    @abstractmethod
    def orders(self, family: Family, base: int, cache: Path) -> list[Order]:
        """What to make with a family; `base` is behind everything random, data sets use the folder `cache`."""

    def differences(self) -> Iterator[Remarked]:
        """A sampler that the model cannot use."""
        if not has_sampler(self.making.sampler, self.model):
            text = (
                f"has no effect: {self.model.arch} was trained by {trained_by(self.model)}, so its own sampler is used"
            )
            yield (self.making_key, "sampler"), text

    def preflight(self) -> Iterator[Remarked]:
        """A model, a LoRA or a folder that is not there."""
        yield from preflight.check_model_paths(self.model)
        for index, lora in enumerate(self.loras):
            if text := missing_network(lora.path):
                yield ("loras", index, "path"), text
        yield from preflight.check_folders(self.sources)
        if text := preflight.why_not_written(self.destination):
            yield ("output_folder",), text
        for index, section in enumerate(self.sources):
            if self.destination.absolute().is_relative_to(section.folder.absolute()):
                text = f"lies in the data set {index} ({section.folder}), which would then read what is made"
                yield ("output_folder",), text

    def plan(self) -> list[str]:
        """What would be done; the model is not read."""
        loras = [f"{lora.path} x {lora.weight:g}" for lora in self.loras]
        return [
            f"model: {self.model.name_or_path} ({self.model.arch})",
            *([f"LoRAs: {', '.join(loras)}"] if loras else []),
            *self.plan_of_pictures(),
            f"folder: {self.destination}",
        ]

    def plan_of_pictures(self) -> list[str]:
        """The lines of `plan` on what is made."""
        return [f"pictures: of {section.folder}" for section in self.sources]

    def filled(self) -> list[Path]:
        """The folder of the pictures."""
        return [self.destination]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.generators.process import GeneratorProcess

        return GeneratorProcess(self, job)


class ToFolder(GeneratorPlugin):
    """Pictures of prompts."""

    generate: GenerateSection = works(..., "What is made, and how.")

    @property
    def making(self) -> GenerateSection:
        """`generate`."""
        return self.generate

    def contradictions(self) -> Iterator[Remarked]:
        """A comparison of nothing."""
        yield from super().contradictions()
        if self.generate.compare and not self.loras:
            yield ("generate", "compare"), "compares weights of LoRAs, but there is none"

    def preflight(self) -> Iterator[Remarked]:
        """Prompts that are not there, or whose flags cannot be read."""
        from toolkit.sampling.prompt_flags import read_flags

        yield from super().preflight()
        try:
            for number, line in enumerate(self.generate.lines()):
                read_flags(line, f"prompt {number + 1}", lambda text: None)
        except ValueError as error:
            yield ("generate", "prompts"), str(error)

    def plan_of_pictures(self) -> list[str]:
        """How many, and the first prompts."""
        from toolkit.sampling.prompt_flags import read_flags

        making, notices = self.generate, list[str]()
        try:
            lines = making.lines()
            for number, line in enumerate(lines):
                read_flags(line, f"prompt {number + 1}", notices.append)
        except ValueError as error:
            return [f"prompts: {error}"]
        num_prompts = making.max_images if making.random_prompts else len(lines)
        factors = {"prompt": num_prompts, "repeat": making.num_repeats, "weight": max(1, len(making.compare))}
        named = [f"{number} {name}s" for name, number in factors.items() if number > 1]
        text = f"pictures: {prod(factors.values())}" + (f" ({' x '.join(named)})" if len(named) > 1 else "")
        return [text, *(f"  {line}" for line in lines[:10]), *(["  ..."] if len(lines) > 10 else []), *notices[:10]]

    def orders(self, family: Family, base: int, cache: Path) -> list[Order]:
        """A picture per prompt, repeat and weight."""
        from extensions_built_in.generators.orders import of_prompts

        return of_prompts(self, family, base)


class BatchImg2Img(GeneratorPlugin):
    """Pictures made of the pictures of data sets, for which their captions are the prompts."""

    generate: Img2ImgSection = works(Img2ImgSection, "How they are made.")
    datasets: list[DatasetSection] = works(..., "Which pictures, at which size.", min_length=1)
    copy_inputs_to: str | None = works(
        None, "Folder for the pictures as the model saw them, cropped and scaled, with the names of what was made."
    )

    @property
    def making(self) -> Img2ImgSection:
        """`generate`."""
        return self.generate

    @property
    def sources(self) -> Sequence[DatasetSection]:
        """`datasets`."""
        return self.datasets

    def preflight(self) -> Iterator[Remarked]:
        """A folder for copies that holds something else."""
        yield from super().preflight()
        if self.copy_inputs_to and Path(self.copy_inputs_to).expanduser().absolute() == self.destination.absolute():
            yield ("copy_inputs_to",), "must be another folder than output_folder: the names are the same"

    def orders(self, family: Family, base: int, cache: Path) -> list[Order]:
        """A picture per picture."""
        from extensions_built_in.generators.data_orders import of_starts

        return of_starts(self, family, base, cache)


class ReferenceGenerator(GeneratorPlugin):
    """Pictures made with the pictures of data sets as references, by models that read some."""

    generate: ReferenceSection = works(ReferenceSection, "How they are made.")
    datasets: list[DatasetSection] = works(..., "The references; the size of what is made follows them.", min_length=1)

    @property
    def making(self) -> ReferenceSection:
        """`generate`."""
        return self.generate

    @property
    def sources(self) -> Sequence[DatasetSection]:
        """`datasets`."""
        return self.datasets

    def orders(self, family: Family, base: int, cache: Path) -> list[Order]:
        """A picture per reference and prompt."""
        from extensions_built_in.generators.data_orders import of_references

        return of_references(self, family, base, cache)


class PureLoraGenerator(GeneratorPlugin):
    """Pictures of the prompts of a `sample` section, as a training would make them."""

    making_key: ClassVar[str] = "sample"

    sample: SampleSection = works(..., "What is made, and how; when does not matter here.")
    lorm: dict[str, Any] | None = planned(
        None,
        "Cut every layer of the model down to a low rank first.",
        why="a LoRM is the model with each layer cut down to a low rank, which aitk does not make; without `lorm` the "
        "model is sampled whole, with `loras`, and job `extract` makes LoRAs of the difference of two models",
    )

    @property
    def making(self) -> Any:
        """`sample`, in the words of `generate`."""
        same = self.sample.model_dump(include=set(MakingSection.model_fields))
        return MakingSection(**{**same, "neg": self.sample.neg or "", "ext": self.sample.format})

    def contradictions(self) -> Iterator[Remarked]:
        """A sample section without prompts."""
        yield from super().contradictions()
        if not self.sample.prompts and not self.sample.samples:
            yield ("sample", "prompts"), "missing: what is to be made"

    def plan_of_pictures(self) -> list[str]:
        """How many, and the first prompts."""
        prompts = [item.prompt for item in self.sample.samples] or self.sample.prompts
        return [f"pictures: {len(prompts)}", *(f"  {prompt}" for prompt in prompts[:10])]

    def orders(self, family: Family, base: int, cache: Path) -> list[Order]:
        """A picture per prompt."""
        from extensions_built_in.generators.orders import of_samples

        return of_samples(self.sample, family, base)


def missing_network(name: str) -> str:
    """What is wrong with the place of a LoRA; empty if it is there, or may be on the Hub."""
    path = Path(name).expanduser()
    if path.is_dir():
        count = len(list(path.glob("*.safetensors")))
        return "" if count == 1 else f"{name} holds {count} .safetensors files: name one of them"
    if path.is_file():
        return "" if path.suffix == ".safetensors" else f"{name} is no .safetensors file; only these are read"
    # the files of experts are named like it: name_high_noise.safetensors
    if list(path.parent.glob(f"{path.stem}_*{path.suffix}")) and path.suffix:
        return ""
    looks_local = path.is_absolute() or name.startswith((".", "~")) or "\\" in name
    if looks_local or not (preflight.HUB_NAME.match(name) or preflight.HUB_ADDRESS.match(name)):
        return f"there is no file {name}"
    return ""
