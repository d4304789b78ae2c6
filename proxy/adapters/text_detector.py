"""The detector of texts behind its port: each text is hashed here, and judged by one run of the graph.

Every text of a request is judged, whoever's role it has in a chat, and the strangest answers for all. More than
MAX_TEXT bytes in one request are not judged but refused: what nobody looks at is where an attack would be.
"""

import asyncio
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from proxy.adapters.onnx_session import open_session, run_each
from proxy.detection.facts import SKETCH, Floats
from proxy.detection.graph import OUTPUTS, build
from proxy.detection.text import MAX_TEXT, TextFacts, grams, shares
from proxy.detection.textgraph import GRAMS, SHARES
from proxy.errors import DependencyFault, Malformed
from proxy.exchange import Inputs, Score, Sightings, Texts
from proxy.reasons import Reason

INLINE_BYTES = 16 << 10  # that the event loop waits for, about a millisecond; more are judged in a thread
INLINE_TEXTS = 16


class TextDetector:
    """Implements `proxy.ports.Detector`."""

    def __init__(self, facts: TextFacts) -> None:
        self.facts = facts
        self._session = open_session(build(facts))
        self._judged([b"the first run allocates; no request waits for it"])

    @property
    def features(self) -> int:
        """How many numbers a row has: a text has none."""
        return 0

    async def judge(self, rows: Inputs) -> Score:
        """Return the strangest text's score."""
        score, _ = await self.examine(rows)
        return score

    async def examine(self, rows: Inputs) -> tuple[Score, Sightings]:
        """Do as `judge`, and return what query sequences need of every text."""
        texts = _read(rows)
        if len(texts) > INLINE_TEXTS or sum(map(len, texts)) > INLINE_BYTES:
            return await asyncio.to_thread(self._judged, texts)
        return self._judged(texts)

    def _judged(self, texts: Sequence[bytes]) -> tuple[Score, Sightings]:
        statistics, sketches = np.empty(len(texts), np.float32), np.empty((len(texts), SKETCH), np.float32)
        for row, text in enumerate(texts):
            statistics[row], sketches[row] = self._run(text)
        if np.isnan(statistics).any():  # NaN compares as ordinary
            raise DependencyFault(Reason.DETECTOR_FAILED, "the statistic is not a number")
        digests = b"".join(blake2b(text, digest_size=8).digest() for text in texts)
        suspicious = statistics > np.float32(self.facts.threshold)
        sightings = Sightings(np.frombuffer(digests, np.uint64), sketches, suspicious, self.facts.tau)
        return self.facts.score(statistics), sightings

    def _run(self, text: bytes) -> tuple[Floats, Floats]:
        found = grams(text)
        [(statistic, sketch)] = run_each(self._session, OUTPUTS, [{GRAMS: found, SHARES: shares(found)}])
        return statistic[0], sketch[0]


def _read(rows: Inputs) -> Sequence[bytes]:
    if not isinstance(rows, Texts):
        raise Malformed(Reason.SCHEMA_MISMATCH, "no texts, and the detector is one of texts")
    texts = rows.read()
    if not texts:
        raise Malformed(Reason.SCHEMA_MISMATCH, "no texts")
    if sum(map(len, texts)) > MAX_TEXT:
        raise Malformed(Reason.SCHEMA_MISMATCH, f"more than {MAX_TEXT} bytes of text")
    return texts
