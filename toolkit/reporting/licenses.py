"""The license of a base model: what its own model card says, else what is known of a few of the Hub, else unknown.

Nothing is guessed: a license that nobody stated is `unknown`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---(?:\r?\n|\Z)", re.DOTALL)
HUB = "https://huggingface.co"

FLUX_DEV = ("other", "flux-1-dev-non-commercial-license", "LICENSE.md")
SD35 = ("other", "stabilityai-ai-community", "LICENSE.md")
APACHE = ("apache-2.0", None, None)
STATED: Mapping[str, tuple[str, str | None, str | None]] = {
    **{f"black-forest-labs/FLUX.1-{name}-dev": FLUX_DEV for name in ("Kontext", "Fill", "Depth", "Canny", "Krea")},
    "black-forest-labs/FLUX.1-dev": FLUX_DEV,
    "black-forest-labs/FLUX.1-schnell": APACHE,
    "black-forest-labs/FLUX.2-klein-4B": APACHE,
    "black-forest-labs/FLUX.2-klein-base-4B": APACHE,
    "stabilityai/stable-diffusion-xl-base-1.0": ("openrail++", None, None),
    "stabilityai/stable-diffusion-2-1": ("openrail++", None, None),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": ("creativeml-openrail-m", None, None),
    "stabilityai/stable-diffusion-3.5-medium": SD35,
    "stabilityai/stable-diffusion-3.5-large": SD35,
    **{f"Wan-AI/Wan2.1-{name}-Diffusers": APACHE for name in ("T2V-1.3B", "T2V-14B", "I2V-14B-480P", "I2V-14B-720P")},
    **{f"Wan-AI/Wan2.2-{name}-Diffusers": APACHE for name in ("T2V-A14B", "I2V-A14B", "TI2V-5B")},
    **{f"Qwen/{name}": APACHE for name in ("Qwen-Image", "Qwen-Image-Edit", "Qwen-Image-Edit-2509")},
    "Tongyi-MAI/Z-Image": APACHE,
    "Tongyi-MAI/Z-Image-Turbo": APACHE,
    "lodestones/Chroma1-HD": APACHE,
    "fal/AuraFlow": APACHE,
    "fal/AuraFlow-v0.2": APACHE,
}
"""Hub id -> (license, license_name, license_link) of its model card. Only what is certain; others are asked."""


@dataclass(frozen=True)
class License:
    """The entries of a model card; `source` says who states it, empty if nobody does."""

    id: str = "unknown"
    name: str | None = None
    link: str | None = None
    source: str = ""

    @property
    def title(self) -> str:
        """The name that people know it by."""
        return self.name or self.id

    def entries(self) -> dict[str, str]:
        """As in the front matter of a model card."""
        named = {"license": self.id, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in named.items() if value}


def license_of(folder: Path | None, repository: str | None, revision: str | None = None, ask: bool = True) -> License:
    """The license of a base model in a folder, or in a repository of the Hub; `ask`: whether the Hub may be asked."""
    if folder is not None:
        return stated_in(folder / "README.md", repository) or License()
    if repository is None:
        return License()
    if (card := _fetched(repository, revision, ask=False)) and (found := stated_in(card, repository)):
        return found
    if repository in STATED:
        identifier, name, link = STATED[repository]
        return License(identifier, name, _absolute(link, repository), "aitk's list of base models")
    card = _fetched(repository, revision, ask=True) if ask else None
    return (stated_in(card, repository) if card else None) or License()


def stated_in(card: Path, repository: str | None) -> License | None:
    """What a model card states; None if there is none, or if it is silent about the license."""
    try:
        found = front_matter(card.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    identifier = found.get("license")
    if isinstance(identifier, list):
        identifier = identifier[0] if len(identifier) == 1 else None
    if not isinstance(identifier, str) or not identifier.strip():
        return None
    name, link = found.get("license_name"), found.get("license_link")
    link = _absolute(link if isinstance(link, str) else None, repository)
    return License(identifier.strip(), name if isinstance(name, str) else None, link, "its model card")


def front_matter(text: str) -> dict[str, Any]:
    """The metadata at the top of a model card; empty if there are none that can be read."""
    match = FRONT_MATTER.match(text)
    try:
        found = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _absolute(link: str | None, repository: str | None) -> str | None:
    """A link that also leads somewhere from another repository."""
    if not link or "://" in link:
        return link
    return f"{HUB}/{repository}/blob/main/{link.removeprefix('./')}" if repository else None


def _fetched(repository: str, revision: str | None, ask: bool) -> Path | None:
    """The card of a repository, in the cache or fetched; None if there is none or the Hub does not give it."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    offline = not ask or constants.HF_HUB_OFFLINE
    try:
        return Path(hf_hub_download(repository, "README.md", revision=revision, local_files_only=offline))
    except (HfHubHTTPError, OSError, ValueError):
        return None
