"""The metadata of a detector file: named strings in the ONNX model, each there exactly once, none unknown."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from proxy.detection.facts import DetectorFacts, Floats, rows_for
from proxy.errors import ConfigError, Finding

FORMAT = "hip-detector/1"
KIND = "tabular"
MAX_CALIBRATION = 1 << 20  # scores: 4 MiB, and no p-value needs more
MAX_NAME = 256  # characters of a model's or a feature's name
NAMES_FAULT = f"a name is empty, longer than {MAX_NAME} characters, not printable, or stands twice"

_SHA256 = re.compile("[0-9a-f]{64}")
_KEYS = frozenset(
    {"format", "kind", "models", "features", "rows", "data_sha256", "preprocessing", "alpha", "tau", "calibration"}
)
_PREPROCESSING = "none: rows as the model receives them, float32"


@dataclass(frozen=True, slots=True, eq=False)
class Metadata:
    """What stands beside the graph; the meaning is that of `DetectorFacts`."""

    models: tuple[str, ...]
    names: tuple[str, ...]
    rows: int
    data_sha256: str
    alpha: float
    tau: float
    calibration: Floats


def write_metadata(facts: DetectorFacts) -> dict[str, str]:
    """Return the strings, in the order of the file."""
    return {
        "format": FORMAT,
        "kind": KIND,
        "models": msgspec.json.encode(facts.models).decode(),
        "features": msgspec.json.encode(facts.names).decode(),
        "rows": str(facts.rows),
        "data_sha256": facts.data_sha256,
        "preprocessing": _PREPROCESSING,
        "alpha": repr(facts.alpha),
        "tau": repr(facts.tau),
        "calibration": base64.b64encode(facts.calibration.astype("<f4").tobytes()).decode(),
    }


def read_metadata(given: Mapping[str, str], source: str) -> Metadata:
    """Return the values. Raise ConfigError with every fault. A key that stood twice fails the graph's comparison."""
    if given.get("format") != FORMAT or given.get("kind") != KIND:
        said = f"{given.get('format', '')!a:.40}, {given.get('kind', '')!a:.40}"
        raise _refused(source, [f"this version reads {FORMAT}, {KIND}; the file says {said}"])
    strays = given.keys() ^ _KEYS
    if strays:
        raise _refused(source, [f"metadata {key!a:.40} is missing or unknown" for key in sorted(strays)[:20]])
    try:
        metadata = Metadata(
            models=msgspec.json.decode(given["models"], type=tuple[str, ...]),
            names=msgspec.json.decode(given["features"], type=tuple[str, ...]),
            rows=int(given["rows"]),
            data_sha256=given["data_sha256"],
            alpha=float(given["alpha"]),
            tau=float(given["tau"]),
            calibration=np.frombuffer(base64.b64decode(given["calibration"], validate=True), "<f4"),
        )
    except (msgspec.DecodeError, ValueError, binascii.Error) as exc:
        raise _refused(source, ["its metadata cannot be read"]) from exc
    faults = _faults(metadata)
    if faults:
        raise _refused(source, faults)
    return metadata


def are_names(names: tuple[str, ...]) -> bool:
    """Say whether names can be told apart, and printed on a terminal without doing anything to it."""
    return len(set(names)) == len(names) and all(0 < len(name) <= MAX_NAME and name.isprintable() for name in names)


def _faults(metadata: Metadata) -> list[str]:
    scores = metadata.calibration
    faults = []
    if not metadata.models:
        faults.append("it is for no model")
    if not (are_names(metadata.models) and are_names(metadata.names)):
        faults.append(NAMES_FAULT)
    if not _SHA256.fullmatch(metadata.data_sha256):
        faults.append("`data_sha256` is not a SHA-256 in hexadecimal")
    if not 0 < metadata.tau < np.inf:
        faults.append("`tau` is not a distance")
    if not 0 < len(scores) <= min(MAX_CALIBRATION, max(metadata.rows, 0)):
        faults.append(f"{len(scores)} calibration scores of {metadata.rows} rows")
    elif not np.isfinite(scores).all() or (np.diff(scores) < 0).any() or scores[0] < 0:
        faults.append("the calibration scores are not finite, or not sorted")
    elif not 0 < metadata.alpha < 1:
        faults.append("`alpha` is not a rate")
    elif rows_for(metadata.alpha) > len(scores):
        faults.append(f"{len(scores)} calibration scores cannot support the false-alarm rate {metadata.alpha:g}")
    return faults


def _refused(source: str, faults: list[str]) -> ConfigError:
    hint = "make one with `hip detector fit`"
    return ConfigError([Finding(source, 0, 0, f"not a detector: {fault}", hint) for fault in faults])
