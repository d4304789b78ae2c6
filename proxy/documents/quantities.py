"""Measures as people write them: durations (`10s`), sizes (`16MiB`), rates (`60 requests/minute`).

A number without a unit is refused: nobody remembers whether a timeout was seconds or milliseconds.
"""

import re
from typing import Annotated

from pydantic import PlainValidator, WithJsonSchema

from proxy.documents.faults import fault
from proxy.exchange import Unit, Window

MAX_SECONDS = 366 * 86_400  # longer is a mistake
MAX_SIZE = 1 << 40  # bytes
MAX_UNITS = 10**12  # of a budget in one window

DURATION_PATTERN = r"^[1-9][0-9]{0,8}(ms|s|m|h|d)$"
SIZE_PATTERN = r"^[1-9][0-9]{0,12}(B|KiB|MiB|GiB)$"
RATE_PATTERN = (
    r"^[1-9][0-9]{0,12} (requests?|rows?|tokens?)(/(second|minute|hour|day)|(/| per )[1-9][0-9]{0,8}(s|m|h|d))$"
)

_DURATION = re.compile(r"([1-9][0-9]{0,8})(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZE = re.compile(r"([1-9][0-9]{0,12})(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_RATE = re.compile(r"([1-9][0-9]{0,12}) +([a-z]+)(?:/| +per +)([a-z0-9]+)")
_PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_UNITS = {spelling: unit for unit in Unit for spelling in (unit.value, unit.value.removesuffix("s"))}


def duration(value: object) -> float:
    """Return the seconds of `500ms`, `10s`, `5m`, `8h` or `1d`."""
    seconds = _seconds(value)
    if seconds is None:
        raise fault("must be a duration, not `{value}`", "a number and its unit: 500ms, 10s, 5m, 8h or 1d", value=value)
    return float(seconds)


def whole_seconds(value: object) -> int:
    """Return the seconds of a duration that is counted in whole ones."""
    seconds = _seconds(value)
    if seconds is None or seconds != int(seconds):
        raise fault("must be a duration, not `{value}`", "a number and its unit: 10s, 5m, 8h or 1d", value=value)
    return int(seconds)


def _seconds(value: object) -> float | None:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    return seconds if 0 < seconds <= MAX_SECONDS else None


def size(value: object) -> int:
    """Return the bytes of `512KiB`, `16MiB` or `1GiB`."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    amount = int(match[1]) * _BYTES[match[2]] if match else 0
    if not 0 < amount <= MAX_SIZE:
        raise fault("must be a size, not `{value}`", "a number and its unit: 512KiB, 16MiB or 1GiB", value=value)
    return amount


def rate(value: object) -> Window:
    """Return the window of `60 requests/minute`, `1000 rows/day` or `20 requests per 10s`."""
    hint = "like `60 requests/minute`, `1000 rows/day` or `20 requests per 10s`"
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise fault("must be a rate, not `{value}`", hint, value=value)
    limit, unit, period = int(match[1]), _UNITS.get(match[2]), match[3]
    if unit is None:
        raise fault("must be in {units}, not in `{given}`", hint, units=" or ".join(Unit), given=match[2])
    seconds = _PERIODS.get(period) or _seconds(period)
    if seconds is None or seconds != int(seconds):
        raise fault("must be per second, minute, hour or day, not per `{period}`", hint, period=period)
    if limit > MAX_UNITS:
        raise fault("must be at most {limit} {unit}", limit=MAX_UNITS, unit=unit)
    return Window(unit, limit, int(seconds))


Seconds = Annotated[
    float,
    PlainValidator(duration),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["10s", "5m", "8h"]}),
]
WholeSeconds = Annotated[
    int,
    PlainValidator(whole_seconds),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN.replace("ms|", ""), "examples": ["30s", "8h"]}),
]
Bytes = Annotated[
    int,
    PlainValidator(size),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "examples": ["512KiB", "16MiB"]}),
]
Rate = Annotated[
    Window,
    PlainValidator(rate),
    WithJsonSchema({"type": "string", "pattern": RATE_PATTERN, "examples": ["60 requests/minute", "1000 rows/day"]}),
]
