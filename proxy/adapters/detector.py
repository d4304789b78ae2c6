"""The detector behind its port: onnxruntime, one thread, no telemetry.

What runs is the graph that `proxy.detection.graph` builds from a file's checked numbers, once the file's digest is
found to be the policy's. Every row is judged, CHUNK_ROWS at a time, and the strangest answers for all. Not guaranteed:
that the rows are all that the model will see; the dialect hands them over.
"""

import asyncio
import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from proxy.detection.facts import DetectorFacts, Floats
from proxy.detection.graph import INPUT, MAX_FILE, OUTPUTS, build, inspect
from proxy.detection.sequence import identities
from proxy.errors import ConfigError, DependencyFault, Finding, Malformed
from proxy.exchange import Features, Score, Sightings
from proxy.reasons import Reason

CHUNK_ROWS = 256  # rows of one run: bounds the memory of a large batch
INLINE_ROWS = 256  # rows that the event loop waits for, about a millisecond; more are judged in a thread


class OnnxDetector:
    """Implements `proxy.ports.Detector`."""

    def __init__(self, facts: DetectorFacts) -> None:
        self.facts = facts
        self._session = _session(build(facts))
        self._judge(facts.mean[None, :])  # the first run allocates; no request waits for it

    @property
    def features(self) -> int:
        """How many numbers a row has."""
        return self.facts.features

    async def judge(self, rows: Features) -> Score:
        """Return the strangest row's score."""
        if rows.ndim and len(rows) > INLINE_ROWS:
            return await asyncio.to_thread(self._judge, rows)
        return self._judge(rows)

    async def examine(self, rows: Features) -> tuple[Score, Sightings]:
        """Do as `judge`, and return what query sequences need of every row."""
        if rows.ndim and len(rows) > INLINE_ROWS:
            return await asyncio.to_thread(self._examine, rows)
        return self._examine(rows)

    def _judge(self, rows: Features) -> Score:
        statistics, _ = self._run(self._checked(rows))
        return self._score(statistics)

    def _examine(self, rows: Features) -> tuple[Score, Sightings]:
        checked = self._checked(rows)
        statistics, sketches = self._run(checked)
        suspicious = statistics > np.float32(self.facts.threshold)
        return self._score(statistics), Sightings(identities(checked), sketches, suspicious, self.facts.tau)

    def _checked(self, rows: Features) -> Features:
        if rows.ndim != 2 or rows.shape[1] != self.facts.features:
            raise Malformed(Reason.SCHEMA_MISMATCH, f"shape {rows.shape}, not (rows, {self.facts.features})")
        if not len(rows):
            raise Malformed(Reason.SCHEMA_MISMATCH, "no rows")
        if rows.dtype != np.float32:
            with np.errstate(over="ignore"):  # infinite then, and refused next
                rows = rows.astype(np.float32)
        if not np.isfinite(rows).all():
            raise Malformed(Reason.SCHEMA_MISMATCH, "a number that is not a finite float32")
        return rows

    def _run(self, rows: Features) -> tuple[Floats, Floats]:
        try:
            parts = [
                self._session.run(OUTPUTS, {INPUT: rows[at : at + CHUNK_ROWS]})
                for at in range(0, len(rows), CHUNK_ROWS)
            ]
        except Exception as exc:  # onnxruntime's errors share no other base
            raise DependencyFault(Reason.DETECTOR_FAILED, f"onnxruntime: {type(exc).__name__}") from exc
        statistics, sketches = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        if np.isnan(statistics).any():  # NaN compares as ordinary
            raise DependencyFault(Reason.DETECTOR_FAILED, "the statistic is not a number")
        return statistics, sketches

    def _score(self, statistics: Floats) -> Score:
        row = int(statistics.argmax())
        statistic = statistics[row]
        p_value = float(self.facts.p_values(statistic))
        return Score(p_value, self.facts.alpha, float(statistic), self.facts.threshold, row)


def load_detector(path: Path, sha256: str, models: Collection[str] = ()) -> OnnxDetector:
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
        return OnnxDetector(facts)
    except DependencyFault as exc:
        hint = "the file is as it should be: look at the installation of onnxruntime"
        raise _refused(path, f"cannot run: {exc.detail}", hint) from exc


def _session(data: bytes) -> Any:
    """Return an onnxruntime session, which has no types."""
    # From 1.29 on it sends telemetry, and writes a device id, unless this stands before its first import.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # fatal only: an error comes back as an exception
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime's errors share no other base
        raise DependencyFault(Reason.DETECTOR_FAILED, f"onnxruntime: {type(exc).__name__}") from exc


def _refused(path: Path, message: str, hint: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, hint)])
