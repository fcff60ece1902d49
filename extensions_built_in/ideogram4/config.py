"""`arch: ideogram4`: Ideogram 4."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.ideogram4.keys import IDEOGRAM4_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin
from toolkit.config.section import Section, works

if TYPE_CHECKING:
    from extensions_built_in.ideogram4.family import Ideogram4Family
    from toolkit.context import Context


class Ideogram4Options(Section):
    """`model.model_kwargs` of Ideogram 4."""

    max_text_length: int = works(2048, "Tokens of a caption that are kept.", ge=1)
    ideogram_schedule_mu: float = works(0.0, "Sampling: mean of the logit-normal noise levels at 512 x 512 pixels.")
    ideogram_schedule_std: float = works(1.5, "Sampling: deviation of the logit-normal noise levels.", gt=0)


class Ideogram4(ModelPlugin):
    """Ideogram 4: a folder or repository in diffusers format, with both of its transformers.

    Only the transformer that sees the caption is trained; the other one is what samples are guided away from.
    """

    example: ClassVar[str] = "ideogram-ai/ideogram-4-fp8"
    recognized_by = {"_class_name": "Ideogram4Pipeline"}
    key_names: ClassVar[KeyNames] = IDEOGRAM4_KEYS

    arch: Literal["ideogram4"]
    model_kwargs: Ideogram4Options = works(Ideogram4Options, "Options of the family.")  # type: ignore[assignment]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> Ideogram4Family:
        """The family with its parts unloaded."""
        from extensions_built_in.ideogram4.family import Ideogram4Family
        from toolkit.models.loading import make_parts

        parts = make_parts(
            self,
            context,
            denoiser=("transformer", "unconditional_transformer"),
            text_encoders=("text_encoder",),
            tokenizers=("tokenizer",),
            checkpointing=checkpointing,
        )
        options = self.model_kwargs
        return Ideogram4Family(
            parts, options.max_text_length, options.ideogram_schedule_mu, options.ideogram_schedule_std
        )
