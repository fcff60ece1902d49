"""`arch: chroma`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import field_validator

from extensions_built_in.chroma.keys import CHROMA_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.chroma.family import ChromaFamily
    from toolkit.context import Context


VERSION = re.compile(r"lodestones/Chroma(?:/v?(\d+))?/?")
"""As ai-toolkit names the files of a repository that holds nothing else; without a number, the last one."""
LAST_VERSION = 50


class Chroma(ModelPlugin):
    """Chroma, a FLUX.1 schnell made smaller and trained without distillation: `lodestones/Chroma1-HD`, `-Base`."""

    example: ClassVar[str] = "lodestones/Chroma1-HD"
    recognized_by = {"_class_name": "ChromaPipeline"}
    key_names: ClassVar[KeyNames] = CHROMA_KEYS

    arch: Literal["chroma"]

    @field_validator("name_or_path")
    @classmethod
    def _name_file(cls, value: str) -> str:
        found = VERSION.fullmatch(value)
        return f"lodestones/Chroma/chroma-unlocked-v{found[1] or LAST_VERSION}.safetensors" if found else value

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> ChromaFamily:
        """The family with its parts unloaded; Chroma has no guidance embedding to bypass."""
        from extensions_built_in.chroma.family import ChromaFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return ChromaFamily(parts)
