"""`embedding`: textual inversion."""

from collections.abc import Iterator
from typing import Literal

from toolkit.config.section import Remarked, Section, planned, works


class EmbeddingSection(Section):
    """`embedding`: a new word is taught to the text encoders; alone, or together with a `network`."""

    trigger: str = works("custom_embedding", "The new word; it is `trigger_word` too, unless that is the same.")
    tokens: int = works(4, "Number of tokens of the word: more hold more, and leave less room for the prompt.", ge=1)
    init_words: str = works("*", "Words that it starts from: repeated if they are fewer tokens, averaged if more.")
    save_format: Literal["safetensors", "pt"] = works("safetensors", "Format of the file.")
    trigger_class_name: str | None = planned(
        None,
        "Class of the word.",
        why="init_words says what the word starts from, train.diff_output_preservation_class what it belongs to",
    )

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        letters = [letter for letter in self.trigger if letter.isalnum()]
        if not letters or any(letter.isspace() for letter in self.trigger):
            yield ("trigger",), "must be one word, with a letter or a digit in it"

    @property
    def suffix(self) -> str:
        """Ending of its file's name."""
        return f".{self.save_format}"

    @property
    def title(self) -> str:
        """What is trained, in words."""
        return f"an embedding of {self.tokens} tokens for {self.trigger!r}"
