"""What a detector of texts sees of the texts in tests/detection/english.py, by its rate and how its texts were split.

    python benchmarks/detector_texts.py

prints the share that is called suspicious of ordinary texts, of encodings, and of gibberish behind an ordinary text, of
60 and of 40 characters. Nothing here decides anything; docs/defence.md and docs/adr/0015-detector-kinds.md read it.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "detection"))

from english import SIGNS, STRANGE, halves

from proxy.detection.fit import Subject
from proxy.detection.fit_text import fit_texts
from proxy.detection.text import grams, statistic

SPLITS, RATES, TEXTS = 3, (0.01, 0.02), 300


def suffix(length: int) -> Callable[[str], str]:
    """Return what puts so many characters of gibberish behind a text."""

    def put(text: str) -> str:
        chosen = random.Random(text)
        return text + " " + "".join(chosen.choice(SIGNS) for _ in range(length))

    return put


def main() -> None:
    """Print one line for each rate and split."""
    changes: dict[str, Callable[[str], str]] = {
        "ordinary": lambda text: text,
        **{name: STRANGE[name] for name in ("gibberish", "base64", "hexadecimal", "rot13")},
        "suffix of 60": suffix(60),
        "suffix of 40": suffix(40),
    }
    for rate in RATES:
        for split in range(SPLITS):
            learned, other = halves(split)
            facts = fit_texts(learned, Subject("texts", ("m",)), rate)
            shares = {
                name: sum(statistic(facts, grams(change(text).encode())) > facts.threshold for text in other[:TEXTS])
                / len(other[:TEXTS])
                for name, change in changes.items()
            }
            told = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
            print(f"{rate:g}, split {split}, {len(learned)} texts: {told}")


if __name__ == "__main__":
    main()
