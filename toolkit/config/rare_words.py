"""Which word of an instance prompt stands for the concept, and whether the class prompt leaves it alone."""

import re
from collections.abc import Iterator

_FILLERS = "a an the of in on at by for with and or to from is are this that his her its my your our their one"
FILLERS = frozenset(_FILLERS.split())
"""Words that name nothing, so that they never count as what tells the concept from its class."""
CUSTOMARY = frozenset({"sks", "ohwx", "zwx", "xjy", "olis", "uvhx"})
"""Made-up words that DreamBooth guides propose, some of which have vowels."""
_ABBREVIATIONS = "tv pc cd dvd cgi hdr hd uhd rgb bw mr mrs dr st vs pvc pbr svg png jpg css 2d 3d 4k 8k 1girl 1boy"
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
"""Words without vowels, or with digits, that are not made up."""
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_VOWEL = re.compile(r"[aeiouy]")
_PLACEHOLDER = re.compile(r"\[(?:trigger|name)\]")


def words(text: str) -> list[str]:
    """The words of a prompt in lower case, each once, without fillers and placeholders."""
    found = _WORD.findall(_PLACEHOLDER.sub(" ", text).lower())
    return [word for word in dict.fromkeys(found) if word not in FILLERS]


def identifiers(instance: str, class_prompt: str) -> list[str]:
    """The words of the instance prompt that the class prompt lacks: they stand for the concept."""
    shared = set(words(class_prompt))
    return [word for word in words(instance) if word not in shared]


def looks_made_up(word: str) -> bool:
    """True for `sks`, `m1k4`, `zwx`: no vowels, or digits among letters, or known from guides."""
    word = word.lower()
    if word in ABBREVIATIONS or not word.isascii():
        return False
    letters = [sign for sign in word if sign.isalpha()]
    has_digits = len(letters) < len(word.replace("-", "").replace("'", ""))
    return word in CUSTOMARY or (bool(letters) and len(word) > 1 and (has_digits or not _VOWEL.search(word)))


def remarks(instance: str, class_prompt: str, trigger: str | None) -> Iterator[tuple[str, str]]:
    """What is unfortunate about two prompts: (the key that should change, what is to be said)."""
    known = trigger or ""
    shared = [word for word in words(class_prompt) if word in words(instance) and looks_made_up(word)]
    if known and re.search(rf"(?<!\w){re.escape(known.lower())}(?!\w)", class_prompt.lower()):
        shared = [known, *(word for word in shared if word != known.lower())]
    placeholder = _PLACEHOLDER.search(class_prompt)
    if placeholder:
        yield "class_prompt", f"{placeholder[0]} stands for the concept; the class has none, so leave it out"
    if shared:
        text = f"holds '{shared[0]}', which stands for the concept: its pictures would teach that the word means any "
        yield "class_prompt", f"{text}other of the class; take it out"
    elif not known and not _PLACEHOLDER.search(instance) and not identifiers(instance, class_prompt):
        text = "nothing tells the concept from its class: every word of it is in class_prompt too"
        yield "instance_prompt", f"{text}; add a rare word, such as 'ohwx'"
