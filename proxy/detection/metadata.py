"""The metadata of a detector file: named strings in the ONNX model, each there exactly once, none unknown."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import numpy as np

from proxy.detection.facts import DetectorFacts, Floats, Learned, rows_for
from proxy.detection.picture import Picture
from proxy.detection.text import PREPROCESSING as _TEXTS
from proxy.detection.text import TextFacts
from proxy.errors import ConfigError, Finding

FORMAT = "hip-detector/1"
MAX_CALIBRATION = 1 << 20  # scores: 4 MiB, and no p-value needs more
MAX_NAME = 256  # characters of a model's or a feature's name
NAMES_FAULT = f"a name is empty, longer than {MAX_NAME} characters, not printable, or stands twice"

_SHA256 = re.compile("[0-9a-f]{64}")
_KEYS = frozenset(
    {"format", "kind", "models", "features", "rows", "data_sha256", "preprocessing", "alpha", "tau", "calibration"}
)
_NUMBERS = "none: rows as the model receives them, float32"


class Kind(StrEnum):
    """What a detector judges."""

    TABULAR = "tabular"  # numbers as they are: tables, tensors
    IMAGE = "image"  # numbers that are pixels
    TEXT = "text"


@dataclass(frozen=True, slots=True, eq=False)
class Metadata:
    """What stands beside the graph; the meaning is that of `DetectorFacts`."""

    kind: Kind
    models: tuple[str, ...]
    names: tuple[str, ...]
    rows: int
    data_sha256: str
    alpha: float
    tau: float
    calibration: Floats
    picture: Picture | None = None  # of the kind `image`, and of no other


def kind_of(facts: Learned) -> Kind:
    """Return which kind a detector is of."""
    if isinstance(facts, TextFacts):
        return Kind.TEXT
    return Kind.TABULAR if _picture(facts) is None else Kind.IMAGE


def write_metadata(facts: Learned) -> dict[str, str]:
    """Return the strings, in the order of the file."""
    return {
        "format": FORMAT,
        "kind": kind_of(facts),
        "models": msgspec.json.encode(facts.models).decode(),
        "features": msgspec.json.encode(facts.names).decode(),
        "rows": str(facts.rows),
        "data_sha256": facts.data_sha256,
        "preprocessing": _preprocessing(facts),
        "alpha": repr(facts.alpha),
        "tau": repr(facts.tau),
        "calibration": base64.b64encode(facts.calibration.astype("<f4").tobytes()).decode(),
    }


def read_metadata(given: Mapping[str, str], source: str) -> Metadata:
    """Return the values. Raise ConfigError with every fault. A key that stood twice fails the graph's comparison."""
    if given.get("format") != FORMAT or given.get("kind") not in set(Kind):
        said = f"{given.get('format', '')!a:.40}, {given.get('kind', '')!a:.40}"
        raise _refused(source, [f"this version reads {FORMAT}, {', '.join(Kind)}; the file says {said}"])
    strays = given.keys() ^ _KEYS
    if strays:
        raise _refused(source, [f"metadata {key!a:.40} is missing or unknown" for key in sorted(strays)[:20]])
    try:
        kind = Kind(given["kind"])
        metadata = Metadata(
            kind=kind,
            models=msgspec.json.decode(given["models"], type=tuple[str, ...]),
            names=msgspec.json.decode(given["features"], type=tuple[str, ...]),
            rows=int(given["rows"]),
            data_sha256=given["data_sha256"],
            alpha=float(given["alpha"]),
            tau=float(given["tau"]),
            calibration=np.frombuffer(base64.b64decode(given["calibration"], validate=True), "<f4"),
            picture=msgspec.json.decode(given["preprocessing"], type=Picture) if kind is Kind.IMAGE else None,
        )
    except (msgspec.DecodeError, ValueError, binascii.Error) as exc:
        raise _refused(source, ["its metadata cannot be read"]) from exc
    faults = _faults(metadata)
    if faults:
        raise _refused(source, faults)
    return metadata


def _preprocessing(facts: Learned) -> str:
    of = _picture(facts)
    if of is not None:
        return msgspec.json.encode(of).decode()
    return _TEXTS if isinstance(facts, TextFacts) else _NUMBERS


def _picture(facts: Learned) -> Picture | None:
    return facts.picture if isinstance(facts, DetectorFacts) else None


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
    if metadata.picture is not None and (fault := metadata.picture.fault()):
        faults.append(fault)
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
