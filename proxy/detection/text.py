"""Texts: what is ordinary in them, learned from hashed trigrams of bytes.

A trigram's surprise is -log of its share in ordinary texts. A text's statistic is the larger of two numbers: the mean
surprise, which sees texts in another language, alphabet or encoding, and the mean over the most surprising WINDOW
trigrams in a row, which sees a suffix of gibberish behind an ordinary text. Each is measured from its mean over
ordinary texts and divided by what 99 % of them stay below. One statistic, so one conformal calibration, as for rows.
A text half as long again as the longest one learned from breaches the gate.

A sketch is a random projection of the square roots of the trigrams' shares, so that it compares texts by Hellinger's
distance. Not guaranteed: anything about the meaning. Ordinary words in any order are ordinary, and so is an attack
that is written in plain language.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxy.detection.facts import BREACH, Floats, Learned

Grams = NDArray[np.int64]

BUCKET_BITS = 15
BUCKETS = 1 << BUCKET_BITS  # English has about 10,000 trigrams
MULTIPLIER = 2_654_435_761  # Knuth, The Art of Computer Programming, volume 3, section 6.4: 2^32 over the golden ratio
SKETCH_BUCKETS = 1024
WINDOW = 48  # trigrams
MAX_TEXT = 1 << 20  # bytes of one text, and of all texts of one request
PREPROCESSING = (
    "UTF-8 bytes, ASCII letters in lower case; trigrams (a * 65536 + b * 256 + c) * 2654435761 mod 4294967296, "
    "of which the upper 15 bits; for the sketch the upper 10 bits, square roots of shares"
)


@dataclass(frozen=True, eq=False)
class TextFacts(Learned):
    """A detector of texts."""

    surprise: Floats  # (BUCKETS + 1,): the last one stands where a short text has no trigram
    mean_centre: float
    mean_weight: float  # 1 / scale
    window_centre: float
    window_weight: float
    longest: float  # trigrams of a text that does not breach the gate
    projection: Floats  # (SKETCH_BUCKETS, SKETCH)


def grams(text: bytes) -> Grams:
    """Return the buckets of a text's trigrams, at least WINDOW of them."""
    octets = np.frombuffer(text.lower(), np.uint8).astype(np.uint32)
    codes = octets[:-2] << np.uint32(16) | octets[1:-1] << np.uint32(8) | octets[2:]
    found: Grams = (codes * np.uint32(MULTIPLIER) >> np.uint32(32 - BUCKET_BITS)).astype(np.int64)
    return found if len(found) >= WINDOW else np.append(found, np.full(WINDOW - len(found), BUCKETS))


def shares(found: Grams) -> Floats:
    """Return the square roots of the shares of a text's trigrams, shape (1, SKETCH_BUCKETS)."""
    inside = found[found < BUCKETS] >> (BUCKET_BITS - 10)
    counts = np.bincount(inside, minlength=SKETCH_BUCKETS)
    roots: Floats = np.sqrt(counts / max(len(inside), 1)).astype(np.float32)
    return roots[None, :]


def statistic(facts: TextFacts, found: Grams) -> float:
    """Return the statistic of a text: what the graph computes, in numpy."""
    mean, window = mean_and_window(facts, found)
    by_mean = (mean - facts.mean_centre) * facts.mean_weight
    by_window = (window - facts.window_centre) * facts.window_weight
    return max(by_mean, by_window, 0.0) + BREACH * (len(found) > facts.longest)


def sketch(facts: TextFacts, found: Grams) -> Floats:
    """Return the sketch of a text, shape (1, SKETCH)."""
    projected: Floats = shares(found) @ facts.projection
    return projected


def mean_and_window(facts: TextFacts, found: Grams) -> tuple[float, float]:
    """Return the mean surprise of a text, and that of its most surprising window."""
    surprises = facts.surprise[found].astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(surprises)])
    return float(surprises.mean()), float((sums[WINDOW:] - sums[:-WINDOW]).max()) / WINDOW
