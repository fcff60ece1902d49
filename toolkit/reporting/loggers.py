"""All loggers of a run as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from toolkit.config.sections.logging import LoggingSection
from toolkit.reporting.metrics import Logger, MetricsFile
from toolkit.reporting.tensorboard import TensorBoard
from toolkit.reporting.wandb import WandB
from toolkit.run_folder import RunFolder


class Loggers:
    """Passes everything on to each of its loggers."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = tuple(loggers)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Store the values of one step."""
        for logger in self._loggers:
            logger.log(step, values)

    def images(self, step: int, paths: Sequence[Path]) -> None:
        """Store the pictures sampled at one step."""
        for logger in self._loggers:
            logger.images(step, paths)


@contextmanager
def open_loggers(
    folder: RunFolder, options: LoggingSection, log_dir: str | None, resumed_step: int
) -> Iterator[Loggers]:
    """metrics.jsonl, TensorBoard with `log_dir`, Weights & Biases with `use_wandb`; ValueError if one is missing."""
    loggers: list[Logger] = [MetricsFile(folder.metrics_path, resumed_step)]
    try:
        if log_dir:
            loggers.append(TensorBoard(Path(log_dir).expanduser() / folder.name, resumed_step))
        if options.use_wandb:
            loggers.append(WandB(folder.path, options.project_name, options.run_name or folder.name))
        yield Loggers(loggers)
    finally:
        for logger in loggers:
            logger.close()
