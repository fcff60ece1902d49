"""What YAML can say about the process and the model family of this extension. No heavy import here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.config.plugins import ModelPlugin, ProcessPlugin
from toolkit.config.section import works

if TYPE_CHECKING:
    from aitk_example.count_images import CountImagesProcess
    from aitk_example.pixels import PixelFamily
    from toolkit.context import Context


class CountImages(ProcessPlugin):
    """Count the images and captions of every folder below `folder`, and write the numbers as JSON."""

    type: Literal["count_images"]
    folder: str = works(..., "Where to look; folders below it are counted one by one.")
    report: str = works(..., "The JSON file to write.")
    extensions: list[str] = works(
        ["jpg", "jpeg", "png", "webp", "bmp", "avif"], "What counts as an image.", min_length=1
    )

    def build(self, job: Any) -> CountImagesProcess:
        """The process; `job` has the name, the meta data and the other processes."""
        from aitk_example.count_images import CountImagesProcess

        return CountImagesProcess(Path(self.folder), Path(self.report), self.extensions)

    def plan(self) -> list[str]:
        """Lines for `aitk run --dry-run`."""
        return [f"count the images below {self.folder}", f"write {self.report}"]


class Pixels(ModelPlugin):
    """A small transformer that works on pixels: no checkpoint to download, trained from scratch in minutes."""

    arch: Literal["example_pixels"]
    name_or_path: str = works("", "A folder that a full fine-tune of this arch wrote; empty: random weights.")
    width: int = works(96, "Channels of a token of a new model.", ge=16, multiple_of=16)
    depth: int = works(3, "Number of blocks of a new model.", ge=1)

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> PixelFamily:
        """The family with its parts unloaded; this one has no guidance that could be bypassed."""
        from aitk_example.pixels import PixelFamily, PixelSource
        from toolkit.models.parts import Parts

        source = PixelSource(self.name_or_path, width=self.width, depth=self.depth, checkpointing=checkpointing)
        return PixelFamily(Parts(source, context.device, context.dtype))
