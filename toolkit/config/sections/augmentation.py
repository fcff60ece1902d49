"""`datasets[].augmentations[]`: one transform of albumentations."""

from typing import Any

from pydantic import field_validator

from toolkit.config.section import Section, works


class AugmentationStep(Section):
    """`datasets[].augmentations[]`."""

    method: str = works(..., "Name of a transform of albumentations.", min_length=1)
    params: dict[str, Any] = works({}, "Its arguments; `cv2.NAME` stands for a constant of OpenCV.")

    @field_validator("method", mode="before")
    @classmethod
    def _check_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError("must be the name of a transform")
        return value
