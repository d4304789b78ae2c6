"""The detector of numbers behind its port, and the loading of both.

What runs is the graph that `proxy.detection.graph` builds from a file's checked numbers, once the file's digest is
found to be the policy's. Every row is judged, a chunk at a time, and the strangest answers for all. Not guaranteed:
that the rows are all that the model will see; the dialect hands them over.
"""

import asyncio
import hashlib
import math
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from proxy.adapters.batching import Batching
from proxy.adapters.onnx_session import open_session, run_each
from proxy.adapters.text_detector import TextDetector
from proxy.detection.facts import DetectorFacts, Floats
from proxy.detection.graph import INPUT, MAX_FILE, OUTPUTS, build, inspect
from proxy.detection.picture import Layout
from proxy.detection.sequence import identities
from proxy.detection.text import TextFacts
from proxy.errors import ConfigError, DependencyFault, Finding, Malformed
from proxy.exchange import Features, Images, Inputs, Score, Sightings, Texts
from proxy.ports import Detector
from proxy.reasons import Reason

CHUNK_ROWS = 1024  # at most in one run: bounds the memory of a large batch
CHUNK_NUMBERS = 1 << 16  # of a run's rows together: what lies between two nodes stays in the processor's cache …
WIDE_ROWS = 16  # … but so many rows share one reading of the weights, which do not fit into it
INLINE_ROWS = 256  # rows that the event loop waits for, about a millisecond; more are judged in a thread
INLINE_NUMBERS = 1 << 18  # of all rows together, about three milliseconds; one row is always judged at once


class OnnxDetector:
    """Implements `proxy.ports.Detector`."""

    def __init__(self, facts: DetectorFacts) -> None:
        self.facts = facts
        self._session = open_session(build(facts))
        self._inline = max(1, min(INLINE_ROWS, INLINE_NUMBERS // facts.features))  # rows
        self._chunk = min(CHUNK_ROWS, max(WIDE_ROWS, CHUNK_NUMBERS // facts.features))  # rows
        self._batching = Batching(self._run)
        self._judge(facts.gate.centre[None, :])  # the first run allocates; no request waits for it

    @property
    def features(self) -> int:
        """How many numbers a row has."""
        return self.facts.features

    async def judge(self, rows: Inputs) -> Score:
        """Return the strangest row's score."""
        if isinstance(rows, (Texts, Images)):
            raise _no_numbers()
        if rows.ndim and len(rows) > self._inline:
            return await asyncio.to_thread(self._judge, rows)
        statistics, _ = await self._batching.run(self._checked(rows))
        return self._scored(statistics)

    async def examine(self, rows: Inputs) -> tuple[Score, Sightings]:
        """Do as `judge`, and return what query sequences need of every row."""
        if isinstance(rows, (Texts, Images)):
            raise _no_numbers()
        if rows.ndim and len(rows) > self._inline:
            return await asyncio.to_thread(self._examine, rows)
        checked = self._checked(rows)
        return self._seen(checked, *await self._batching.run(checked))

    def _judge(self, rows: Features) -> Score:
        parts = run_each(self._session, OUTPUTS[:1], self._inputs(self._checked(rows)))  # no sketch: as large as x
        return self._scored(np.concatenate([statistics for (statistics,) in parts]))

    def _examine(self, rows: Features) -> tuple[Score, Sightings]:
        checked = self._checked(rows)
        return self._seen(checked, *self._run(checked))

    def _seen(self, rows: Features, statistics: Floats, sketches: Floats) -> tuple[Score, Sightings]:
        score = self._scored(statistics)
        suspicious = statistics > np.float32(self.facts.threshold)
        return score, Sightings(identities(rows), sketches, suspicious, self.facts.tau)

    def _scored(self, statistics: Floats) -> Score:
        score = self.facts.score(statistics)
        if math.isnan(score.statistic):  # the strangest, wherever it stands: `argmax` finds a NaN before all numbers
            raise DependencyFault(Reason.DETECTOR_FAILED, "the statistic is not a number")
        return score

    def _checked(self, rows: Features) -> Features:
        if rows.ndim != 2 or rows.shape[1] != self.facts.features:
            raise Malformed(Reason.SCHEMA_MISMATCH, f"shape {rows.shape}, not (rows, {self.facts.features})")
        if not len(rows):
            raise Malformed(Reason.SCHEMA_MISMATCH, "no rows")
        if rows.dtype != np.float32:
            with np.errstate(over="ignore"):  # infinite then, and refused next
                rows = rows.astype(np.float32)
        for part in self._chunks(rows):
            if np.count_nonzero(np.isfinite(_aligned(part))) != part.size:
                raise Malformed(Reason.SCHEMA_MISMATCH, "a number that is not a finite float32")
        return rows

    def _run(self, rows: Features) -> tuple[Floats, Floats]:
        parts = run_each(self._session, OUTPUTS, self._inputs(rows))
        statistics, sketches = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        return statistics, sketches

    def _inputs(self, rows: Features) -> Iterator[dict[str, Features]]:
        return ({INPUT: _aligned(part)} for part in self._chunks(rows))

    def _chunks(self, rows: Features) -> list[Features]:
        if len(rows) <= self._chunk:
            return [rows]
        return [rows[at : at + self._chunk] for at in range(0, len(rows), self._chunk)]


def load_detector(path: Path, sha256: str, models: Collection[str] = ()) -> Detector:
    """Return a detector. Raise ConfigError when the file is missing, another or unfit, or not made for the models."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as exc:
        message = f"cannot be read: {exc.strerror or type(exc).__name__}"
        raise _refused(path, message, "make it with `hip detector fit`, or mend its path in the policy") from exc
    if len(data) > MAX_FILE:
        raise _refused(path, f"larger than any detector ({MAX_FILE:,} bytes)", "the policy may name the wrong file")
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        hint = "whoever changed it tells why; then write the new digest into the policy"
        raise _refused(path, f"its SHA-256 is {digest}, and the policy names {sha256}", hint)
    facts = inspect(data, str(path))
    foreign = sorted(set(models) - set(facts.models))
    if foreign:
        hint = f"it was made for {', '.join(facts.models)}; fit one for the others, or name them with --model"
        raise _refused(path, f"not a detector of {', '.join(foreign)}", hint)
    try:
        return _detector(facts)
    except DependencyFault as exc:
        hint = "the file is as it should be: look at the installation of onnxruntime"
        raise _refused(path, f"cannot run: {exc.detail}", hint) from exc


def _detector(facts: DetectorFacts | TextFacts) -> Detector:
    if isinstance(facts, TextFacts):
        return TextDetector(facts)
    if facts.picture is not None and facts.picture.layout is Layout.ENCODED:
        from proxy.adapters.image_detector import ImageDetector  # an image decoder is there only where one is needed

        return ImageDetector(facts)
    return OnnxDetector(facts)


def _aligned(rows: Features) -> Features:
    """Return rows that begin where a number may; of a large request they may lie elsewhere, and are copied in parts."""
    return rows if rows.flags.aligned else rows.copy()


def _no_numbers() -> Malformed:
    return Malformed(Reason.SCHEMA_MISMATCH, "texts or encoded images, and the detector is one of numbers")


def _refused(path: Path, message: str, hint: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, hint)])
