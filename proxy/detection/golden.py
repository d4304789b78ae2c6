"""Golden probes: inputs whose answers are known, and how far a model's answers have moved from them.

Decides whether a model still answers as on the day its baseline was recorded: no label flipped, no score moved, none
rounded, the same metadata, not much slower. That is how poisoning by retraining and silent replacement show. Pure.

Not guaranteed: that a replaced model is seen which answers every golden input alike. A backdoor with a trigger that is
not among them is not. Read are outputs of the Open Inference Protocol v2, as JSON.
"""

import hashlib
import json
import re
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from proxy.errors import ConfigError, Finding, UpstreamFault
from proxy.reasons import Reason

MAX_BASELINE = 4 << 20  # bytes
MAX_DECIMALS = 7  # beyond them float32 scores have none of their own
MAX_VALUES = 1_000_000  # numbers of one answer
WHOLLY = 1e9  # the shift of an output that is missing, or of another shape

_PATH = re.compile(r"/v2/models/[A-Za-z0-9._-]{1,128}(?:/versions/[A-Za-z0-9._-]{1,128})?")


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One output, as it was: `scores` row by row."""

    name: str
    shape: tuple[int, ...]
    values: tuple[float, ...]


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A baseline file, made by `hip probe record`."""

    version: int
    model: str  # its path at the server: /v2/models/NAME
    request: str  # the body, as it is sent
    metadata_sha256: str  # of the metadata, its keys in order
    seconds: float  # the median answer
    outputs: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What may change before it counts as a change."""

    flips: float  # share of rows with another label
    shift: float  # of any score
    slower: float | None  # times the baseline's answer; None: time does not count


@dataclass(frozen=True, slots=True)
class Delta:
    """What has changed."""

    flips: float
    shift: float
    coarser: bool  # the scores have another number of decimals
    metadata: bool
    slower: float  # times the baseline's answer

    def beyond(self, tolerance: Tolerance) -> tuple[str, ...]:
        """Return what is beyond the tolerance, in words; nothing: the model is the same."""
        late = tolerance.slower is not None and self.slower > tolerance.slower
        found = (
            (self.flips > tolerance.flips, f"{self.flips:.1%} of the labels flipped"),
            (self.shift > tolerance.shift, f"a score moved by {self.shift:.2g}"),
            (self.coarser, "the scores have another number of decimals"),
            (self.metadata, "the metadata changed"),
            (late, f"{self.slower:.1f} times as slow"),
        )
        return tuple(words for holds, words in found if holds)


def read_golden(data: bytes, source: str) -> Golden:
    """Return a baseline. Raise ConfigError where it is none."""
    try:
        golden = msgspec.json.decode(data, type=Golden)
        usable = bool(golden.outputs and _PATH.fullmatch(golden.model) and golden.seconds > 0)
        for output in golden.outputs:
            usable &= int(np.prod(output.shape)) == len(output.values) > 0 and bool(np.isfinite(output.values).all())
    except (msgspec.DecodeError, ValueError, OverflowError) as exc:
        raise _refused(source) from exc
    if not usable or golden.version != 1:
        raise _refused(source)
    return golden


def outputs(body: bytes) -> tuple[Expected, ...]:
    """Return the numeric outputs of an answer. Raise UpstreamFault where it has none, or cannot be read."""
    try:
        content = json.loads(body)
        found = tuple(
            Expected(str(each["name"]), tuple(map(int, each["shape"])), _flat(each["data"]))
            for each in content["outputs"]
            if each["datatype"] != "BYTES"
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        raise UpstreamFault(Reason.UPSTREAM_UNREADABLE, "no answer of the Open Inference Protocol") from exc
    sizes = [(int(np.prod(each.shape)), len(each.values)) for each in found]
    if not found or any(size != count or not 0 < count <= MAX_VALUES for size, count in sizes):
        raise UpstreamFault(Reason.UPSTREAM_UNREADABLE, "no numeric output, or one of another shape than it says")
    return found


def _flat(data: object) -> tuple[float, ...]:
    """Return the numbers of a tensor, also of a nested one: both forms are the protocol's, and callers get both."""
    return tuple(np.asarray(data, np.float64).ravel().tolist())


def metadata_digest(body: bytes) -> str:
    """Return the digest of a model's metadata, whatever order its keys came in."""
    try:
        plain = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as exc:
        raise UpstreamFault(Reason.UPSTREAM_UNREADABLE, "metadata that is no JSON") from exc
    return hashlib.sha256(plain).hexdigest()


def compare(golden: Golden, found: tuple[Expected, ...], metadata: str, seconds: float) -> Delta:
    """Return what has changed. An output that is missing, new or of another shape counts as wholly changed."""
    flips, shift, coarser = 0.0, 0.0, False
    known = {output.name: output for output in found}
    if set(known) != {output.name for output in golden.outputs}:
        flips, shift = 1.0, WHOLLY
    for before in golden.outputs:
        after = known.get(before.name)
        if after is None or after.shape != before.shape:
            flips, shift = 1.0, WHOLLY
            continue
        old, new = np.asarray(before.values), np.asarray(after.values)
        moved = np.nan_to_num(np.abs(old - new), nan=WHOLLY, posinf=WHOLLY)
        shift = max(shift, min(float(moved.max()), WHOLLY))
        flips = max(flips, float((_labels(old, before.shape) != _labels(new, after.shape)).mean()))
        coarser |= _decimals(old) != _decimals(new)
    return Delta(flips, shift, coarser, metadata != golden.metadata_sha256, seconds / golden.seconds)


def _labels(values: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    if len(shape) > 1 and shape[-1] > 1:
        labels: NDArray[np.float64] = values.reshape(-1, shape[-1]).argmax(axis=1).astype(np.float64)
        return labels
    return values.round()  # labels themselves, or the score of one class: it flips at a half


def _decimals(values: NDArray[np.float64]) -> int:
    """Return how many decimals all values get by with; MAX_DECIMALS where that many are not enough."""
    for count in range(MAX_DECIMALS):
        if np.abs(values * 10**count - np.round(values * 10**count)).max() < 10.0 ** (count - MAX_DECIMALS):
            return count
    return MAX_DECIMALS


def _refused(source: str) -> ConfigError:
    return ConfigError([Finding(source, 0, 0, "not a baseline", "make it with `hip probe record`")])
