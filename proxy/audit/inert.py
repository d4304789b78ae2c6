"""Strings that somebody else chose, made safe to store and to show: every reader of a record may trust its characters.

Decides the length and the characters; what is not printable (controls, line ends, surrogates, bidirectional marks)
becomes U+FFFD. It does NOT escape for HTML, CSV or a shell: that is the part of whoever writes those.
"""

MAX_NAME = 256  # characters of a role, a model, an issuer, a key id
MAX_DETAIL = 1_000  # characters of our own explanation
MAX_NAMES = 64  # roles or factors in one record
CUT = "\u2026"
UNPRINTABLE = "\ufffd"


def inert(text: str, cap: int = MAX_NAME) -> str:
    """Return the text, printable and at most `cap` characters long."""
    if len(text) > cap:
        text = text[: cap - 1] + CUT
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else UNPRINTABLE for char in text)


def inert_or_none(text: str | None) -> str | None:
    """Return the same for a value that may be absent."""
    return None if text is None else inert(text)


def inert_set(texts: frozenset[str]) -> tuple[str, ...]:
    """Return a set in a fixed order, so that equal sets make equal records; what is beyond the cap is said to be so."""
    names = tuple(inert(text) for text in sorted(texts)[:MAX_NAMES])
    return names if len(texts) <= MAX_NAMES else (*names, CUT)
