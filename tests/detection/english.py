"""Ordinary texts that every Python has with it: prose of its language reference; and what is not ordinary.

Tables, grammars and examples are left out: they are another language, and a calibration that has a few of them in its
tail depends on which.
"""

import base64
import codecs
import random
import string
from collections.abc import Callable, Mapping
from functools import cache
from pydoc_data.topics import topics

LETTERS = string.ascii_lowercase + " "
SIGNS = string.ascii_letters + string.punctuation + "    "


@cache
def paragraphs() -> tuple[str, ...]:
    """In random order, always the same."""
    every = {" ".join(part.split()) for topic in topics.values() for part in topic.split("\n\n")}
    found = sorted(one for one in every if len(one) > 60 and sum(map(_is_prose, one)) > 0.85 * len(one))
    random.Random(0).shuffle(found)
    return tuple(found)


def _is_prose(character: str) -> bool:
    return character.isalpha() or character in " .,;"


def halves(seed: int = 0) -> tuple[list[bytes], list[str]]:
    """What a detector learns from, and what it has not seen."""
    every = list(paragraphs())
    random.Random(seed).shuffle(every)
    return [one.encode() for one in every[::2]], list(every[1::2])


def _noise(text: str, alphabet: str) -> str:
    chosen = random.Random(text)
    return "".join(chosen.choice(alphabet) for _ in text)


def _typos(text: str) -> str:
    chosen = random.Random(text)
    return "".join(chosen.choice(LETTERS) if chosen.random() < 0.03 else one for one in text)


def _words_in_any_order(text: str) -> str:
    words = text.split()
    random.Random(text).shuffle(words)
    return " ".join(words)


STRANGE: Mapping[str, Callable[[str], str]] = {
    "gibberish": lambda text: _noise(text, LETTERS),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "gibberish suffix": lambda text: text + " " + _noise(text[:40] + "x" * 20, SIGNS),
}
ORDINARY: Mapping[str, Callable[[str], str]] = {"typos": _typos, "words in any order": _words_in_any_order}
