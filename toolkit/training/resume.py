"""Continue a run from what its folder holds."""

from __future__ import annotations

from collections.abc import Callable

from toolkit.networks.network import Network
from toolkit.run_folder import RunFolder
from toolkit.training.state import StateError, TrainState, read_state


def resume(state: TrainState, folder: RunFolder, start_step: int | None, tell: Callable[[str], None]) -> None:
    """Restore the saved state, or else the newest whole weights; `start_step` replaces the step number.

    Raises ValueError if the state belongs to another network or optimizer: starting over would overwrite it.
    """
    content = None
    if folder.state_path.exists():
        try:
            content = read_state(folder.state_path)
        except StateError as error:
            tell(f"{folder.state_path} is not used: {error}")
    if content is not None:
        _restore(state, content, folder)
        tell(f"resumed exactly at step {state.step}")
    elif newest := folder.newest_weights(_endings(state.network), tell):
        state.step, paths = newest
        for network, path in zip(state.network.by_file().values(), paths, strict=True):
            network.read(path)
        if state.ema:
            state.ema.restart(state.params)
        names = " and ".join(path.name for path in paths)
        tell(f"resumed weights of step {state.step} from {names}; optimizer and data order start anew")
    if start_step is not None:
        state.step = start_step


def _endings(network: Network) -> list[str]:
    """How the names of the files of a save end."""
    return [suffix + part.suffix for suffix, part in network.by_file().items()]


def _restore(state: TrainState, content: dict[str, object], folder: RunFolder) -> None:
    try:
        state.restore(content)
    except StateError as error:
        raise ValueError(
            f"{folder.state_path} cannot be continued: {error}; give the run another name, "
            "undo the change, or move that folder away"
        ) from error
