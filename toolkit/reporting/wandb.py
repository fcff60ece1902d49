"""Numbers and pictures for Weights & Biases, if it is installed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit.reporting.versions import installed_version


class WandB:
    """One run of `project`; its id is kept in `folder`, so that a resumed run goes on in the same curves."""

    def __init__(self, folder: Path, project: str, run_name: str | None = None) -> None:
        if installed_version("wandb") is None:
            raise ValueError(
                "logging.use_wandb needs the package: `pip install wandb`, or set logging.use_wandb: false"
            )
        import wandb

        known = folder / "wandb_run_id.txt"
        run_id = known.read_text().strip() if known.exists() else secrets.token_hex(8)
        self._wandb = wandb
        self._run = wandb.init(project=project, name=run_name, id=run_id, resume="allow", dir=str(folder))
        known.write_text(run_id + "\n")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        self._run.log(dict(values), step=step)

    def images(self, step: int, paths: Sequence[Path]) -> None:
        """Add the pictures, each under its number."""
        pictures = {f"samples/{number}": self._wandb.Image(str(path)) for number, path in enumerate(paths)}
        self._run.log(pictures, step=step)

    def close(self) -> None:
        """Upload what is pending."""
        self._run.finish()
