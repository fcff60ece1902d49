"""`job: merge`: several LoRAs into one, LoRAs into a base model, checkpoints into one. Their keys; light."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from extensions_built_in.weights.output import OneWeighted, WeightedFile, WritesWeights, as_group, is_file_name
from toolkit.config.plugins import Remarked, load_plugin
from toolkit.config.section import works

JOBS = ("extension", "merge")


class MergeLoras(WritesWeights):
    """Make one LoRA of several."""

    jobs: ClassVar[tuple[str, ...]] = JOBS

    loras: list[OneWeighted] = works(..., "The files, each as a path or as `{path, weight}`.", min_length=1)
    method: Literal["concat", "sum", "svd"] = works(
        "concat",
        "concat: exact, the rank is the sum of the ranks. svd: the nearest one of a lower rank. sum: the mean of the "
        "factors, for states of one training run.",
    )
    rank: int | None = works(None, "svd: the rank of every layer at most.", ge=1)
    energy: float = works(1.0, "svd: the share of the squared singular values that every layer keeps.", gt=0, le=1)
    key_format: Literal["diffusers", "kohya", "comfyui", "original"] | None = works(
        None, "Key format of the output; default: that of the first file."
    )
    arch: str | None = works(None, "Model family, if neither header nor layers of the first file tell it.")
    report: str | None = works(None, "svd, sum: a JSON file with what was kept or lost of every layer.")

    def inputs(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """The LoRAs."""
        for number, one in enumerate(self.loras):
            yield ("loras", number, "path"), one.path

    def contradictions(self) -> Iterator[Remarked]:
        """Keys that do not go together."""
        yield from super().contradictions()
        yield from _check_ending(self.output_path)
        yield from _check_arch(self.arch)
        if self.method == "svd" and self.rank is None and self.energy == 1:
            yield ("method",), "svd needs `rank`, or an `energy` below 1"
        if self.method != "svd":
            for key in ("rank", "energy"):
                if key in self.model_fields_set:
                    yield (key,), f"has no effect with `method: {self.method}`; set `method: svd`"
        if all(one.weight == 0 for one in self.loras):
            yield ("loras",), "all weights are 0"

    def plan(self) -> list[str]:
        """What would be done."""
        how = f"{self.method}, rank {self.rank}" if self.rank else self.method
        return [*(f"{one.path} x {one.weight:g}" for one in self.loras), f"combined by {how}", f"to {self.target}"]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.weights.merge_process import MergeLorasProcess

        return MergeLorasProcess(self)


class AddedLora(WeightedFile):
    """A LoRA that is merged into a base."""

    part: Literal["transformer", "transformer_2", "unet"] | None = works(
        None, "The denoiser that it is for, where the base has two: Wan 2.2 14B has transformer (much noise) and _2."
    )


OneAdded = Annotated[AddedLora, BeforeValidator(as_group)]


class MergeLoraIntoModel(WritesWeights):
    """Make a model of a base and LoRAs. Any family; no part of the model is built, so memory stays at one tensor."""

    jobs: ClassVar[tuple[str, ...]] = JOBS

    base: str = works(
        ...,
        "The model: a folder in diffusers format or of one part, `builtin:NAME`, a Hub repository, or a .safetensors "
        "file in any layout.",
        min_length=1,
    )
    revision: str | None = works(None, "Branch, tag or commit of the base, if it is on the Hub.")
    loras: list[OneAdded] = works(..., "The files, each as a path or as `{path, weight}`.", min_length=1)
    arch: str | None = works(None, "Model family, if neither header nor layers of the first file tell it.")
    whole: bool = works(True, "Base is a folder: copy the parts that do not change, for a model that loads by itself.")

    def inputs(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """The base and the LoRAs."""
        yield ("base",), self.base
        for number, one in enumerate(self.loras):
            yield ("loras", number, "path"), one.path

    def contradictions(self) -> Iterator[Remarked]:
        """An output of another kind than the base."""
        yield from super().contradictions()
        yield from _check_kind(self.base, self.output_path, "base")
        yield from _check_arch(self.arch)

    def plan(self) -> list[str]:
        """What would be done."""
        rest = ", and the parts that stay" if self.whole and not is_file_name(self.output_path) else ""
        return [
            f"base: {self.base}",
            *(f"+ {one.path} x {one.weight:g}" for one in self.loras),
            f"to {self.target}{rest}",
        ]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.weights.merge_process import MergeLoraIntoModelProcess

        return MergeLoraIntoModelProcess(self)


class MergeModels(WritesWeights):
    """Make one checkpoint of several of the same architecture."""

    jobs: ClassVar[tuple[str, ...]] = JOBS

    models: list[OneWeighted] = works(
        ..., "Folders in diffusers format, Hub repositories, or .safetensors files, as a path or as `{path, weight}`.",
        min_length=2,
    )  # fmt: skip
    method: Literal["weighted_sum", "add_difference"] = works(
        "weighted_sum",
        "weighted_sum: the mean with the weights, which need not add up to 1. add_difference: A + multiplier (B - C), "
        "for three models.",
    )
    multiplier: float = works(1.0, "add_difference: how much of the difference is added.")
    parts: list[str] = works(
        [], "Folders: the parts that are merged; default: denoiser and text encoders. The others are the first model's."
    )
    allow_missing: bool = works(
        False, "Take tensors that another model lacks from the first one, and leave out those that the first one lacks."
    )
    whole: bool = works(True, "Folders: copy the parts of the first model that are not merged.")

    def inputs(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """The models."""
        for number, one in enumerate(self.models):
            yield ("models", number, "path"), one.path

    def contradictions(self) -> Iterator[Remarked]:
        """Keys that do not go together."""
        yield from super().contradictions()
        yield from _check_kind(self.models[0].path, self.output_path, "models")
        weighted = [number for number, one in enumerate(self.models) if "weight" in one.model_fields_set]
        if self.method == "add_difference":
            if len(self.models) != 3:
                yield ("models",), f"add_difference needs three models, A + multiplier (B - C), not {len(self.models)}"
            if weighted:
                yield ("models", weighted[0], "weight"), "has no effect with add_difference; set `multiplier`"
        elif "multiplier" in self.model_fields_set:
            yield ("multiplier",), "has no effect with weighted_sum; set `weight` of each model"
        elif abs(sum(one.weight for one in self.models)) < 1e-9:
            yield ("models",), "the weights add up to 0, so there is no mean"

    def plan(self) -> list[str]:
        """What would be done."""
        if self.method == "add_difference":
            a, b, c = (one.path for one in self.models)
            return [f"{a} + {self.multiplier:g} ({b} - {c})", f"to {self.target}"]
        total = sum(one.weight for one in self.models)
        return [*(f"{one.path} x {one.weight / total:.4g}" for one in self.models), f"to {self.target}"]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.weights.merge_process import MergeModelsProcess

        return MergeModelsProcess(self)


def _check_ending(name: str) -> Iterator[Remarked]:
    if not is_file_name(name):
        yield ("output_path",), "has to end with .safetensors"


def _check_arch(arch: str | None) -> Iterator[Remarked]:
    if arch is not None:
        try:
            load_plugin("models", arch)
        except ValueError as error:
            yield ("arch",), str(error)


def _check_kind(source: str, target: str, key: str) -> Iterator[Remarked]:
    if is_file_name(source) != is_file_name(target):
        kind = "a single file, so this has to end with .safetensors" if is_file_name(source) else "no single file, " \
            "so this is the name of a folder"  # fmt: skip
        yield ("output_path",), f"{key}: {source} is {kind}"
