"""`train.validation_config`: the loss on held-out images, at fixed noise."""

from typing import Annotated

from pydantic import Field

from toolkit.config.section import Section, works


class ValidationItem(Section):
    """`train.validation_config.validation_items[]`."""

    image_path: str = works(..., "A held-out image.", min_length=1)
    prompt: str = works("", "Its caption.")


class ValidationSection(Section):
    """`train.validation_config`."""

    validation_items: list[ValidationItem] = works([], "Held-out images and their captions.")
    resolution: int = works(512, "Images are scaled to about resolution x resolution pixels.", ge=16)
    validate_every_n_steps: int = works(10, "Steps between two measurements.", ge=1)
    validation_sigmas: list[Annotated[float, Field(gt=0, le=1)]] = works(
        [1.0, 0.75, 0.5, 0.25], "Noise levels at which the loss is measured; 1 is pure noise.", min_length=1
    )
