"""The detector of encoded images behind its port: each image becomes a row of numbers, which `OnnxDetector` judges.

The bytes are read and decoded in the event loop where that is about a millisecond, and else in one thread of the
detector's own: whatever callers send, it decodes one request at a time, and no other work waits for it. Two requests
are the same to query sequences if their files are, byte by byte.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from proxy.adapters.detector import OnnxDetector
from proxy.adapters.image_decoder import headers, rows
from proxy.detection.facts import DetectorFacts
from proxy.errors import Malformed
from proxy.exchange import Features, Images, Inputs, Score, Sightings, Texts
from proxy.reasons import Reason

INLINE_BYTES = 16 << 10  # of a request
INLINE_PIXELS = 1 << 14  # of all its images, about a millisecond
INLINE_IMAGES = 4  # each costs about a sixth of one, however small it is


class ImageDetector:
    """Implements `proxy.ports.Detector`."""

    def __init__(self, facts: DetectorFacts) -> None:
        self.facts = facts
        self._numbers = OnnxDetector(facts)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hip-images")

    @property
    def features(self) -> int:
        """How many numbers a row has: an encoded image has none."""
        return 0

    async def judge(self, rows: Inputs) -> Score:
        """Return the strangest image's score."""
        decoded, _ = await self._decoded(rows)
        return await self._numbers.judge(decoded)

    async def examine(self, rows: Inputs) -> tuple[Score, Sightings]:
        """Do as `judge`, and return what query sequences need of every image."""
        decoded, identities = await self._decoded(rows)
        score, sightings = await self._numbers.examine(decoded)
        return score, replace(sightings, identities=identities)

    async def _decoded(self, given: Inputs) -> tuple[Features, NDArray[np.uint64]]:
        images = given.images if isinstance(given, Texts) else given
        if not isinstance(images, Images):
            raise Malformed(Reason.SCHEMA_MISMATCH, "no encoded images, and the detector is one of them")
        if images.size <= INLINE_BYTES:
            files = images.read()
            read = headers(files)
            if len(read) <= INLINE_IMAGES and sum(one.pixels for one in read) <= INLINE_PIXELS:
                return rows(read), _identities(files)
        return await asyncio.get_running_loop().run_in_executor(self._thread, _all, images)


def _all(images: Images) -> tuple[Features, NDArray[np.uint64]]:
    files = images.read()
    return rows(headers(files)), _identities(files)


def _identities(files: Sequence[bytes]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(blake2b(file, digest_size=8).digest() for file in files), np.uint64)
