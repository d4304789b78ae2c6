"""Hours of the week: `mon-fri 08:00-18:00 Europe/Berlin`, by the clock on the wall of that zone.

The first minute is in, the last is out: `08:00-18:00` ends when the clock shows 18:00. Hours that end before they
begin go past midnight and belong to the day on which they begin. When a zone changes its clocks, the wall decides: an
hour that comes twice holds twice.

Not guaranteed: that the zone's rules are right. They are those of this machine's time zone database, read once when
the policy is compiled.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import PlainValidator, WithJsonSchema

from proxy.documents import fault, suggestion

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60  # minutes

_DAYS = "|".join(DAYS)
_ZONE = r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}"
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
HOURS_PATTERN = rf"^(daily|({_DAYS})(-({_DAYS}))?) {_CLOCK}-({_CLOCK}|24:00) {_ZONE}$"
MOMENT_PATTERN = rf"^({_DAYS}) {_CLOCK} {_ZONE}$"

_HOURS = re.compile(rf"(daily|({_DAYS})(?:-({_DAYS}))?) ({_CLOCK})-({_CLOCK}|24:00) ({_ZONE})")
_MOMENT = re.compile(rf"({_DAYS}) ({_CLOCK}) ({_ZONE})")


@dataclass(frozen=True, slots=True)
class Hours:
    """A stretch of the week. `text` is how the policy says it; minutes count from midnight."""

    text: str
    days: frozenset[int]  # on which it begins; Monday is 0
    begin: int
    end: int  # at or before `begin`: on the next day
    zone: tzinfo

    def hold(self, now: float) -> bool:
        """Say whether a moment (UNIX seconds) lies in them."""
        local = datetime.fromtimestamp(now, self.zone)
        day, minute = local.weekday(), local.hour * 60 + local.minute
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        return (day in self.days and minute >= self.begin) or ((day - 1) % 7 in self.days and minute < self.end)


def hours(value: object) -> Hours:
    """Read hours as a policy says them."""
    match = _HOURS.fullmatch(value) if isinstance(value, str) else None
    if not match:
        hint = "like `mon-fri 08:00-18:00 Europe/Berlin` or `daily 22:00-06:00 UTC`"
        raise fault("must be hours of the week, not `{value}`", hint, value=value)
    every, first, last, begin, end, zone = match.groups()
    if begin == end:
        raise fault("must begin and end at different times", "`00:00-24:00` is a whole day")
    days = frozenset(range(7)) if every == "daily" else _days(first, last or first)
    return Hours(match[0], days, _minutes(begin), _minutes(end), _zone(zone))


def moment(value: object) -> "Moment":
    """Read a moment of a week as a test says it."""
    match = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise fault("must be a moment of the week, not `{value}`", "like `tue 10:30 Europe/Berlin`", value=value)
    return Moment(DAYS.index(match[1]), _minutes(match[2]), _zone(match[3]))


@dataclass(frozen=True, slots=True)
class Moment:
    """A minute of some week; Monday is day 0."""

    day: int
    minute: int
    zone: tzinfo

    def after(self, start: int) -> int:
        """Return the first such moment (UNIX seconds) on a day after that of `start`."""
        today = datetime.fromtimestamp(start, self.zone).replace(hour=0, minute=0, second=0, microsecond=0)
        ahead = (self.day - today.weekday() - 1) % 7 + 1
        local = datetime.fromordinal(today.toordinal() + ahead)
        return int(local.replace(hour=self.minute // 60, minute=self.minute % 60, tzinfo=self.zone).timestamp())


def _days(first: str, last: str) -> frozenset[int]:
    begin, end = DAYS.index(first), DAYS.index(last)
    return frozenset((begin + number) % 7 for number in range((end - begin) % 7 + 1))


def _minutes(clock: str) -> int:
    hour, _, minute = clock.partition(":")
    return int(hour) * 60 + int(minute)


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # whatever this machine has
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as exc:
        near = suggestion(name, available_timezones())
        hint = "like `Europe/Berlin` or `UTC`; this machine's time zone database decides what there is"
        raise fault("must name a time zone, and `{name}` is none here{near}", hint, name=name, near=near) from exc


WeekHours = Annotated[
    Hours,
    PlainValidator(hours),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": HOURS_PATTERN,
            "examples": ["mon-fri 08:00-18:00 Europe/Berlin", "daily 22:00-06:00 UTC"],
        }
    ),
]
WeekMoment = Annotated[
    Moment,
    PlainValidator(moment),
    WithJsonSchema({"type": "string", "pattern": MOMENT_PATTERN, "examples": ["tue 10:30 Europe/Berlin"]}),
]
