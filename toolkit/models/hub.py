"""Files of a checkpoint, wherever they are: embedded, on this disk, or on the Hugging Face Hub (fetched if needed)."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from toolkit.config.embedded import EMBEDDED, embedded_folder, misnamed

HUB_FILE = re.compile(r"([\w.-]+/[\w.-]+)/(?:(?:blob|resolve)/([^/]+)/)?(.+\.safetensors)")
HUB_SITES = ("https://huggingface.co/", "https://hf.co/")
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
KNOWN_FOR_S = 30
"""So long at most it is taken as known whether the Hub answers."""


@dataclass(frozen=True)
class Root:
    """A place that holds the files of a checkpoint: `builtin:NAME`, a folder, or a Hub repository at a revision."""

    name: str
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder; None for a Hub repository."""
        if self.name.startswith(EMBEDDED) and (wrong := misnamed(self.name)):
            raise ValueError(f"model.name_or_path: {wrong}")
        path = embedded_folder(self.name) or Path(self.name).expanduser()
        return path if path.exists() else None

    @property
    def location(self) -> str:
        """The folder or Hub id, as diffusers' `from_pretrained` takes it."""
        return str(self.folder or self.name)

    def file(self, name: str) -> Path:
        """The file `name`, on this disk. Raises ValueError with what is missing and what to do."""
        if self.folder is None:
            return _download(self.name, name, self.revision)
        path = self.folder / name
        if not path.is_file():
            raise ValueError(f"{self.name} has no {name}")
        return path

    def find(self, names: Sequence[str]) -> Path | None:
        """The first of the files `names` that there is."""
        if self.folder is not None:
            return next((self.folder / name for name in names if (self.folder / name).is_file()), None)
        from huggingface_hub.errors import EntryNotFoundError

        for name in names:
            try:
                return _fetched(self.name, name, self.revision)
            except EntryNotFoundError:
                continue
            except (OSError, ValueError):
                return _download(self.name, name, self.revision)  # says it in words
        return None

    def small_files(self, subfolder: str) -> Path:
        """A folder on this disk with the configuration and vocabulary files of `subfolder`."""
        if self.folder is not None:
            return self.folder / subfolder
        from huggingface_hub import snapshot_download

        patterns = [f"{subfolder}/{pattern}" if subfolder else pattern for pattern in SMALL_FILES]
        return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=patterns)) / subfolder


def is_single_file(name: str) -> bool:
    """Whether `name` is one file of weights: on this disk, `owner/repo/path.safetensors`, or its address on the Hub."""
    return Path(name).expanduser().is_file() or _hub_file(name) is not None


def single_file(name: str) -> Path:
    """The file of `is_single_file` on this disk."""
    path, found = Path(name).expanduser(), _hub_file(name)
    if path.is_file() or found is None:
        return path
    repository, revision, file = found
    return _download(repository, file, revision)


def at_revision(name: str, revision: str | None) -> str:
    """The name of a single file that says its revision, if it is on the Hub."""
    found = _hub_file(name)
    if revision is None or found is None or Path(name).expanduser().is_file():
        return name
    return f"{found[0]}/resolve/{found[1] or revision}/{found[2]}"


def _hub_file(name: str) -> tuple[str, str | None, str] | None:
    """(repository, revision or None, file) of the name of a file on the Hub."""
    site = next((site for site in HUB_SITES if name.startswith(site)), "")
    if not site and (name.startswith((".", "~", "/")) or "\\" in name or ":" in name):
        return None
    found = HUB_FILE.fullmatch(name.removeprefix(site).partition("?")[0])
    return (found[1], found[2], found[3]) if found else None


def _download(repository: str, file: str, revision: str | None) -> Path:
    """Fetch a file, or take it from the cache; what goes wrong is a ValueError that says what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    place = f"{repository} at revision {revision}" if revision else repository
    try:
        return _fetched(repository, file, revision)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hugging Face Hub cannot be reached"
        option = f" --revision {revision}" if revision else ""
        # where a small file is missing, what it describes is missing too
        wanted = repository if file.endswith(".json") else f"{repository} {file}"
        raise ValueError(
            f"{place}: {file} is not in the cache, and {why}; run `hf download {wanted}{option}` where there is a "
            "connection, or name a folder"
        ) from error
    except GatedRepoError as error:
        raise ValueError(
            f"{place} is gated: accept its terms at {HUB_SITES[0]}{repository}, then `hf auth login` or set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"model.revision: {repository} has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"{repository} is not on the Hugging Face Hub, or it is private: check the name, or run `hf auth login`"
        ) from error
    except EntryNotFoundError as error:
        raise ValueError(f"{place} has no {file}") from error
    except HFValidationError as error:
        raise ValueError(f"{repository!r} is neither here nor a name of the Hugging Face Hub (owner/model)") from error


def _fetched(repository: str, file: str, revision: str | None) -> Path:
    """A file from the cache, or fetched; where nothing answers, huggingface_hub is kept from trying half a minute."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    is_cached = isinstance(try_to_load_from_cache(repository, file, revision=revision), str)
    is_vain = not is_cached and not is_reachable()
    return Path(hf_hub_download(repository, file, revision=revision, local_files_only=is_vain))


def is_reachable() -> bool:
    """Whether the Hub can be reached; what HF_HUB_OFFLINE forbids is for huggingface_hub to say."""
    from huggingface_hub import constants

    return _answers(constants.ENDPOINT, int(time.monotonic() // KNOWN_FOR_S))


@lru_cache(maxsize=1)
def _answers(address: str, period: int) -> bool:
    """Whether connections to an address can be made, at the second try at the latest; they may be slow."""
    from huggingface_hub import constants, get_session

    for pause_s in (1, 0):
        try:
            get_session().head(address, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        # the classes of a failed connection differ between versions of huggingface_hub
        except Exception as error:
            if type(error).__name__ in ("ConnectError", "ConnectTimeout"):
                time.sleep(pause_s)
                continue
        return True
    return False
