"""What is special in Qwen-Image 2.1 beyond the contract test: noise levels that the checkpoint brings along."""

from pathlib import Path

import numpy as np
from family_subject import Case, Subject

from extensions_built_in.qwen_image_21.tiny import save_tiny


def test_the_checkpoints_noise_levels_are_for_their_number_of_steps(tmp_path: Path):
    family = Subject(Case("qwen_image_21", save_tiny), tmp_path / "tiny").build()
    assert family.schedule(5, (1, 4, 8, 8))["sigmas"] == [1.0, 0.8, 0.5, 0.3, 0.1]
    np.testing.assert_allclose(family.schedule(4, (1, 4, 8, 8))["sigmas"], [1.0, 0.75, 0.5, 0.25])
