"""What is wrong with the pictures of a notebook's data set, said once each."""

from toolkit.data.pictures.image import BrokenImage


def note_broken(error: BrokenImage, problems: list[str]) -> None:
    """Name a picture that cannot be read, once."""
    line = f"{error}; left out"
    if line not in problems:
        problems.append(line)
