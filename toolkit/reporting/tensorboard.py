"""Numbers and pictures for TensorBoard, if it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit.reporting.versions import installed_version


def is_installed() -> bool:
    """Whether the package tensorboard is there."""
    return installed_version("tensorboard") is not None


class TensorBoard:
    """Writes an event file into `folder`; of an earlier run, steps after the resumed one are hidden."""

    def __init__(self, folder: Path, resumed_step: int = 0) -> None:
        if not is_installed():
            raise ValueError("log_dir needs TensorBoard: `pip install tensorboard`, or leave log_dir out")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=resumed_step + 1 if resumed_step else None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def images(self, step: int, paths: Sequence[Path]) -> None:
        """Add the pictures, each under its number, so that TensorBoard lines them up over steps."""
        import numpy
        from PIL import Image

        for number, path in enumerate(paths):
            with Image.open(path) as image:
                pixels = numpy.asarray(image.convert("RGB"))
            self._writer.add_image(f"samples/{number}", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write out what is pending."""
        self._writer.close()
