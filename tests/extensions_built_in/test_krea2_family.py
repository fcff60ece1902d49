"""What is special in Krea 2 beyond the contract test: the distilled checkpoint shifts all pictures alike."""

from pathlib import Path

from family_subject import Case, Subject

from extensions_built_in.krea2.tiny import save_tiny


def test_a_distilled_checkpoint_shifts_all_sizes_alike(tmp_path: Path):
    raw = Subject(Case("krea2", save_tiny), tmp_path / "raw").build()
    turbo = Subject(Case("krea2", lambda folder: save_tiny(folder, is_distilled=True)), tmp_path / "turbo").build()
    assert turbo.schedule(8, (1, 4, 8, 8))["mu"] == turbo.schedule(8, (1, 4, 128, 128))["mu"] == 1.15
    assert raw.schedule(8, (1, 4, 8, 8))["mu"] < raw.schedule(8, (1, 4, 128, 128))["mu"]
