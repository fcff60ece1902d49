"""The extract jobs `lora` and `locon`: their keys. What they do is in extract_process.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from typing_extensions import Self

from extensions_built_in.weights.extract_arch import guess_arch
from extensions_built_in.weights.output import missing
from toolkit.config import preflight
from toolkit.config.plugins import ModelPlugin, ProcessPlugin, Remarked, chosen, load_plugin
from toolkit.config.section import idle, planned, works
from toolkit.config.sections.values import Device, Dtype

if TYPE_CHECKING:
    from extensions_built_in.weights.extract_process import ExtractProcess
    from toolkit.networks.extract import Rules

NO_SPARSE_BIAS = (
    "neither diffusers nor ComfyUI nor sd-scripts reads its tensors (bias_indices, bias_values); "
    "a larger `linear` or `conv` keeps more of the difference"
)
NOT_HERE = ("quantize", "quantize_te", "lora_path", "assistant_lora_path", "inference_lora_path")
"""Keys of a model that would change what it is compared with."""


class ExtractLora(ProcessPlugin):
    """The difference of two checkpoints as a LoRA of the Linear layers and 1x1 convolutions in the blocks."""

    jobs: ClassVar[tuple[str, ...]] = ("extract", "extension")
    of_config: ClassVar[tuple[str, ...]] = (
        "base_model",
        "extract_model",
        "output_folder",
        "extract_unet",
        "extract_text_encoder",
        "dtype",
        "is_v2",
        "arch",
        "extras_name_or_path",
        "model",
    )
    defaults: ClassVar[dict[str, tuple[float, float | None]]] = {
        "fixed": (4, None),
        "threshold": (0, None),
        "ratio": (0.5, None),
        "quantile": (0.5, None),
    }
    """mode -> (linear, conv) where they are not given."""

    base_model: str | None = works(
        None, "The checkpoint that was fine-tuned: a folder, a .safetensors file or a Hub name; or say `model`."
    )
    extract_model: str = works(
        ...,
        "The fine-tuned checkpoint: the same, or the folder of a full fine-tune of aitk, `<name>_<step>`.",
        min_length=1,
    )
    arch: str | None = works(
        None, "aitk only. Model family of `base_model`; default: as its files tell, else sd1 (sd2 with `is_v2`)."
    )
    extras_name_or_path: str | None = works(
        None,
        "aitk only. Where the configuration and what else a single file lacks come from; default: the family's usual "
        "repository.",
    )
    is_v2: bool = works(False, "Old spelling of `arch: sd2`.")
    model: Annotated[ModelPlugin | None, chosen("models", by="arch")] = works(
        None, "aitk only. The base with all the keys that a model can have, in place of base_model and arch."
    )
    extract_unet: bool = works(True, "Compare the denoiser, a U-Net or a transformer.")
    extract_text_encoder: bool = works(
        True, "Compare the text encoders, where the family can train them (Stable Diffusion, SDXL)."
    )

    mode: Literal["fixed", "threshold", "ratio", "quantile"] = works(
        "fixed",
        "How `linear` and `conv` give a layer's rank. fixed: they are the rank; threshold: singular values above the "
        "number are kept; ratio: those above so much of the largest one; quantile: the fewest that have so much of "
        "the sum of all.",
    )
    linear: float | None = works(
        None,
        "The number of Linear layers and 1x1 convolutions; default: 4, 0, 0.5, 0.5 by mode (locon: 64 for 4).",
        ge=0,
    )
    conv: float | None = works(
        None,
        "The number of larger convolutions. Default: they are left out, but for locon: 32, 0, 0.5, 0.5 by mode. "
        "0 leaves them out too in the modes fixed and, for lora, threshold.",
        ge=0,
    )
    max_rank: int | None = works(None, "aitk only. No layer gets a larger rank, in any mode.", ge=1)
    transformer_only: bool = works(True, "aitk only. Leave out layers outside of the model's blocks.")
    diffs: bool = works(
        False,
        "aitk only. Write what has no low rank too, such as biases, norms and embeddings, as .diff and .diff_b. "
        "ComfyUI reads these, diffusers does not.",
    )
    use_sparse_bias: bool = planned(False, "Keep the largest entries of what low rank leaves.", why=NO_SPARSE_BIAS)
    sparsity: float = planned(0.98, "Share that use_sparse_bias leaves out.", needs="use_sparse_bias")
    disable_cp: bool = idle(
        False,
        "convolutions are always written without a Tucker core (lora_mid), which diffusers does not read",
        ui=True,
    )

    device: Device = works("auto", "auto, cpu, mps, cuda, or one GPU such as `cuda:1`.")
    dtype: Dtype = works("fp16", "Precision of the file; the computation is in fp32.")
    key_format: Literal["auto", "diffusers", "kohya", "comfyui", "original"] = works(
        "auto", "aitk only. Names of the layers in the file; auto: those that most programs read for this model."
    )
    training_folder: str = works("output", "Takes the place of `output_folder` if that is absent.", min_length=1)
    output_folder: str | None = works(None, "Folder of the file.", min_length=1)
    filename: str | None = works(None, "Name of the file in it; default: by name, mode and numbers.", min_length=1)
    output_path: str | None = works(None, "The file; wins over output_folder and filename.", min_length=1)
    json_report: bool = works(False, "aitk only. Write what was kept of each layer beside the file, as .json.")

    @property
    def numbers(self) -> tuple[float, float | None]:
        """The mode's numbers (Linear layers, larger convolutions); None leaves the latter out."""
        linear, conv = self.defaults[self.mode]
        linear = linear if self.linear is None else self.linear
        conv = conv if self.conv is None else self.conv
        is_off = conv == 0 and (self.mode == "fixed" or (self.mode == "threshold" and self.type == "lora"))
        return linear, None if is_off else conv

    def rules(self) -> Rules:
        """Which layers get which rank."""
        from toolkit.networks.extract import Rules

        return Rules(self.mode, *self.numbers, self.max_rank, self.transformer_only, self.diffs)

    def path(self, job: str) -> Path:
        """Where the file goes; `job` is the name of the job."""
        if self.output_path:
            return _with_ending(Path(self.output_path).expanduser())
        numbers = "_".join(f"{number:g}" for number in self.numbers if number is not None)
        default = f"{self.name or job}_{self.mode}_{numbers}"
        folder = Path(self.output_folder or self.training_folder).expanduser()
        return _with_ending(folder / (self.filename or default))

    def results(self, job: str) -> list[Path]:
        """The file."""
        return [self.path(job)]

    def completed(self) -> Self:
        """With `model` in place of what stands for it."""
        if self.model is not None or any(True for _ in self.contradictions()):
            return self
        keys = {"arch": self._arch(), "name_or_path": self.base_model, "extras_name_or_path": self.extras_name_or_path}
        return self.model_copy(update={"model": load_plugin("models", self._arch()).model_validate(keys)})

    def _arch(self) -> str:
        return self.arch or ("sd2" if self.is_v2 else guess_arch(str(self.base_model)) or "sd1")

    def contradictions(self) -> Iterator[Remarked]:
        """Numbers that a mode cannot have, and a base that is missing or said twice."""
        for key in ("linear", "conv"):
            if (text := _check_number(self.mode, getattr(self, key), key)) != "":
                yield (key,), text
        if self.model is None and self.base_model is None:
            yield ("base_model",), "missing: the checkpoint that was fine-tuned"
        elif self.model is not None:
            if self.base_model not in (None, self.model.name_or_path):
                yield ("base_model",), "is not model.name_or_path, which is the base; remove one of them"
            if self.arch not in (None, self.model.arch):
                yield ("arch",), "is not model.arch; remove one of them"
        elif self.base_model is not None:
            try:
                load_plugin("models", self._arch())
            except ValueError as error:
                yield ("arch",), str(error)
        for key in NOT_HERE if self.model is not None else ():
            if getattr(self.model, key):
                yield ("model", key), "the base is compared as it is in its files; remove this key"
        if not self.extract_unet and not self.extract_text_encoder:
            yield ("extract_unet",), "extract_unet and extract_text_encoder are both false: nothing is left to compare"

    def differences(self) -> Iterator[Remarked]:
        """What ai-toolkit would do otherwise."""
        if self.type == "locon" and self.mode == "quantile":
            yield ("mode",), "the rank is the first with which the quantile is reached; ai-toolkit takes one less"

    def preflight(self) -> Iterator[Remarked]:
        """Checkpoints and folders that are not there."""
        if self.model is not None:
            for path, text in preflight.check_model_paths(self.model):
                yield (path if self.base_model is None else ("base_model",)), text
        tuned = Path(self.extract_model).expanduser()
        if text := missing(self.extract_model):
            yield ("extract_model",), text
        elif tuned.is_file() and tuned.suffix != ".safetensors":
            yield ("extract_model",), f"{self.extract_model} is no .safetensors file; only these are read"

    def plan(self) -> list[str]:
        """What would be done."""
        linear, conv = self.numbers
        base = f"{self.model.name_or_path} ({self.model.arch})" if self.model else ""
        larger = f", larger convolutions {conv:g}" if conv is not None else ""
        return [
            f"base: {base}",
            f"fine-tuned: {self.extract_model}",
            f"rank: {self.mode} {linear:g}{larger}" + (f", at most {self.max_rank}" if self.max_rank else ""),
            f"result: {self.path(self.name or '')}",
        ]

    def build(self, job: Any) -> ExtractProcess:
        """The process, ready to run."""
        from extensions_built_in.weights.extract_process import ExtractProcess

        return ExtractProcess(self, job)


class ExtractLocon(ExtractLora):
    """The same with the larger convolutions, and with the layers outside of the blocks."""

    defaults: ClassVar[dict[str, tuple[float, float | None]]] = {
        "fixed": (64, 32),
        "threshold": (0, 0),
        "ratio": (0.5, 0.5),
        "quantile": (0.5, 0.5),
    }

    transformer_only: bool = works(False, "aitk only. Leave out layers outside of the model's blocks.")


def _check_number(mode: str, number: float | None, key: str) -> str:
    """What is wrong with a number for `mode`; empty if nothing is."""
    if number is None:
        return ""
    if mode == "fixed" and (number != int(number) or (key == "linear" and number < 1)):
        return f"is the rank in the mode fixed, a whole number, not {number:g}; or set mode"
    if mode in ("ratio", "quantile") and number > 1:
        return f"is a share between 0 and 1 in the mode {mode}, not {number:g}"
    return ""


def _with_ending(path: Path) -> Path:
    return path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")
