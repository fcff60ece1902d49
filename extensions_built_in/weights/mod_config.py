"""`job: mod`: another strength, rank, number type or header of a file. The keys of these processes; light."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from extensions_built_in.weights.output import WritesWeights, is_file_name
from toolkit.config.plugins import Remarked
from toolkit.config.section import works
from toolkit.config.sections.values import Dtype

JOBS = ("extension", "mod")


class ChangesFile(WritesWeights):
    """Reads `input_path`; inherited by each process with the keys of what it changes."""

    jobs: ClassVar[tuple[str, ...]] = JOBS

    input_path: str = works(..., "The file that is read.", min_length=1)
    output_path: str = works(..., "The file that is written; the same as `input_path` replaces it.", min_length=1)

    def inputs(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """The one file."""
        yield ("input_path",), self.input_path

    def may_replace(self) -> bool:
        """Who names the same file twice wants it replaced."""
        source = Path(self.input_path).expanduser()
        return self.overwrite or (source.exists() and self.target.samefile(source))

    def contradictions(self) -> Iterator[Remarked]:
        """An output that is no file of tensors."""
        yield from super().contradictions()
        if not is_file_name(self.output_path) and is_file_name(self.input_path):
            yield ("output_path",), "has to end with .safetensors"


class RescaleLora(ChangesFile):
    """Change the strength of a LoRA: what it did with `current_weight` it then does with `target_weight`."""

    current_weight: float = works(..., "The weight with which the file works as wanted; negative turns it around.")
    target_weight: float = works(..., "The weight that is to do the same with the output, usually 1.")
    scale_target: Literal["up_down", "alpha"] = works(
        "up_down", "What is multiplied: the root of the factor into both matrices, or all of it into alpha."
    )
    save_dtype: Dtype | None = works("fp16", "Type of the numbers in the file.")
    replace_meta: bool = works(False, "Replace the header by `meta` of the config; what it says of the base is kept.")
    is_xl: bool = works(False, "With `replace_meta`: the header says that the base is SDXL.")
    is_v2: bool = works(False, "With `replace_meta`: the header says that the base is SD 2.")

    @property
    def factor(self) -> float:
        """By which the update grows."""
        return self.current_weight / self.target_weight

    def contradictions(self) -> Iterator[Remarked]:
        """Weights that no factor can be made of."""
        yield from super().contradictions()
        for key in ("target_weight", "current_weight"):
            if getattr(self, key) == 0:
                yield (key,), "must not be 0"

    def differences(self) -> Iterator[Remarked]:
        """What ai-toolkit does otherwise with these values."""
        if self.scale_target == "alpha":
            yield ("scale_target",), "changes alpha alone (ai-toolkit scales lora_down as well)"
        if self.current_weight * self.target_weight < 0:
            yield ("current_weight",), "turns the update around (ai-toolkit writes NaN)"
        if self.replace_meta and not (self.is_xl or self.is_v2):
            yield ("replace_meta",), "keeps what the header says of the base (ai-toolkit writes SD 1.5)"

    def plan(self) -> list[str]:
        """What would be done."""
        return [f"{self.input_path}: its update times {self.factor:g}, in {self.scale_target}", f"to {self.target}"]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.weights.mod_process import RescaleLoraProcess

        return RescaleLoraProcess(self, job)


class ResizeLora(ChangesFile):
    """Cut a LoRA to a lower rank, layer by layer to the nearest one."""

    rank: int | None = works(None, "The rank of every layer at most.", ge=1)
    energy: float = works(1.0, "The share of the squared singular values that every layer keeps.", gt=0, le=1)
    report: str | None = works(None, "A JSON file with the rank and the energy of every layer.")

    def contradictions(self) -> Iterator[Remarked]:
        """Nothing to do."""
        yield from super().contradictions()
        if self.rank is None and self.energy == 1:
            yield ("rank",), "say `rank`, or an `energy` below 1, or both"

    def plan(self) -> list[str]:
        """What would be done."""
        limits = [f"rank {self.rank}"] if self.rank else []
        limits += [f"{self.energy:.4%} of the energy"] if self.energy < 1 else []
        return [f"{self.input_path}: cut to {' and '.join(limits)}", f"to {self.target}"]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.weights.mod_process import ResizeLoraProcess

        return ResizeLoraProcess(self)


class ChangeDtype(ChangesFile):
    """Write the numbers of a file, or of the parts of a model folder, in another type."""

    input_path: str = works(..., "A .safetensors file, or a model folder in diffusers format.", min_length=1)
    save_dtype: Dtype | None = works(..., "Type of the numbers; integers and alphas stay as they are.")

    def plan(self) -> list[str]:
        """What would be done."""
        return [f"{self.input_path}: numbers in {self.save_dtype}", f"to {self.target}"]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.weights.mod_process import ChangeDtypeProcess

        return ChangeDtypeProcess(self)


class EditMetadata(ChangesFile):
    """Change the header of a file; its tensors stay."""

    strip: bool = works(False, "Remove all entries but those that the tensors cannot be read without.")
    remove: list[str] = works([], "Entries that are removed; `ss_*` stands for all that begin so.")
    set: dict[str, Any] = works({}, "Entries that are added or replaced; what is no text becomes JSON.")

    def plan(self) -> list[str]:
        """What would be done."""
        removed = ["all entries removed"] if self.strip else [f"{name} removed" for name in self.remove]
        changes = [*removed, *(f"{name} set" for name in self.set)]
        return [f"{self.input_path}: {', '.join(changes) or 'hashes written anew'}", f"to {self.target}"]

    def build(self, job: Any) -> Any:
        """The process, ready to run."""
        from extensions_built_in.weights.mod_process import EditMetadataProcess

        return EditMetadataProcess(self)
