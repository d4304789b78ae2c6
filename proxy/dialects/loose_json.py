"""JSON without a declared shape, as v1 servers speak it: what a row is, and how any value in a reply is hardened. Pure.

A list of numbers is a row of scores, and so are the numbers of an object and a list of labelled scores. What is
suppressed loses its name or its place too, where the order of the entries would tell their ranking.

Not guaranteed: that a number which stands for something else (a box, a time) survives a profile made for scores; it
comes out coarser, never finer. A whole number by itself is a label.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import msgspec
import numpy as np

from proxy.dialects import lone
from proxy.dialects.lone import APART, MAX_DEPTH, alone
from proxy.errors import Malformed, UnsupportedMediaType, UpstreamFault
from proxy.exchange import Features, Headers, Output, Query, Reply, Target
from proxy.hardening.scores import harden_row
from proxy.hardening.text import harden_text
from proxy.reasons import Reason

Json: TypeAlias = Any  # only inside this module and its dialects: a value that was decoded and not yet understood

JSON_HEADERS: Headers = ((b"content-type", b"application/json"),)

_LABEL = Output("label", label_only=True)

encode = msgspec.json.Encoder().encode


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────


def media_type(headers: Headers) -> bytes:
    """Return the one content type in lower case, without parameters; empty: none. Raise UnsupportedMediaType."""
    kinds = [value for name, value in headers if name == b"content-type"]
    if len(kinds) > 1 or any(name == b"content-encoding" for name, _ in headers):
        raise UnsupportedMediaType(detail="two content types, or a content coding")
    return kinds[0].partition(b";")[0].strip().lower() if kinds else b""


def require_json(headers: Headers) -> None:
    """Raise UnsupportedMediaType for anything but JSON. Without a content type it is JSON, as the servers have it."""
    if media_type(headers) not in {b"", b"application/json"}:
        raise UnsupportedMediaType(detail="content type")


def refuse_body(body: bytes) -> None:
    """Raise Malformed for a body where there is nothing to say."""
    if body and body.strip() != b"{}":
        raise Malformed(Reason.MALFORMED_BODY, "this action takes no body")


def features(rows: Sequence[Json]) -> Features | None:
    """Return rows as (rows, numbers); None where they are not numbers, or not of one shape."""
    flat = [_numbers(row, MAX_DEPTH) for row in rows]
    if not flat or any(row is None for row in flat) or len({len(row) for row in flat if row is not None}) != 1:
        return None
    try:
        with np.errstate(over="ignore"):  # beyond float32: infinite here, and refused by the detector's gate
            return np.array(flat, dtype=np.float64).astype(np.float32)
    except OverflowError as exc:
        raise Malformed(detail="a number beyond float64") from exc


def _numbers(value: Json, depth: int) -> list[float] | None:
    if type(value) in {int, float}:
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list) or depth == 0:
        return None
    if set(map(type, value)) <= {int, float}:
        return value
    parts = [_numbers(entry, depth - 1) for entry in value]
    return None if any(part is None for part in parts) else [number for part in parts for number in part or ()]


def by_row(columns: Json) -> list[Json]:
    """Return the rows of a tensor, or of an object of columns of the same length. Raise Malformed."""
    if isinstance(columns, list):
        return columns
    given = list(columns.values()) if isinstance(columns, dict) else []
    if not given or not all(isinstance(column, list) and len(column) == len(given[0]) for column in given):
        raise Malformed(detail="neither rows, nor columns of the same length")
    return [list(row) for row in zip(*given, strict=True)]


# ── replies ─────────────────────────────────────────────────────────────────────────────────────────────────────


def read_reply(reply: Reply, *, untyped: bool = False) -> Json:
    """Return a JSON reply. `untyped`: a server that sends no content type is believed to mean JSON.

    Raise UpstreamFault(UPSTREAM_UNREADABLE).
    """
    kind = (reply.value(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind != b"application/json" and not (untyped and not any(name == b"content-type" for name, _ in reply.headers)):
        raise unreadable("content type")
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise unreadable(type(exc).__name__) from exc


class WithoutStreams:
    """What a dialect says to a stream when it has none."""

    def stream(self, target: Target, query: Query, begun: Reply, output: Output) -> NoReturn:  # noqa: ARG002 - the protocol's signature
        """Refuse."""
        raise unreadable("a stream")


def unreadable(detail: str) -> UpstreamFault:
    """Return the fault of a reply that cannot be read completely."""
    return UpstreamFault(Reason.UPSTREAM_UNREADABLE, detail)


def harden(value: Json, output: Output) -> Json:
    """Return what one row of the input got, under the profile. Raise UpstreamFault(UPSTREAM_UNREADABLE)."""
    try:
        return _harden(value, output, MAX_DEPTH)
    except (ValueError, OverflowError) as exc:
        raise unreadable(str(exc)) from exc


def harden_words(value: Json) -> Json:
    """Return a label, or a list of labels, if none of them could be a score. Raise as `harden` does."""
    words = [word for word in (value if isinstance(value, list) else [value]) if isinstance(word, str)]
    if [harden(word, _LABEL) for word in words] != words:
        raise unreadable("a label that may be a score")
    return value


def harden_rows(value: Json, rows: int, output: Output, depth: int = MAX_DEPTH) -> Json:
    """Return what each of several rows got; an object has such a list under every name. Raise as `harden` does."""
    if isinstance(value, dict):
        harden(dict.fromkeys(value), output)  # only the names
        if depth == 0:
            raise unreadable("nesting")
        if _most(output) is not None and lone.column_places(value) > 1:
            raise unreadable("scores in several places" + APART)
        shown = {name: harden_rows(column, rows, output, depth - 1) for name, column in value.items()}
        return _side_by_side(value, shown, output)
    if not isinstance(value, list) or len(value) != rows:
        raise unreadable("not as many results as rows")
    return [harden(entry, output) for entry in value]


def _side_by_side(value: Mapping[str, Json], shown: dict[str, Json], output: Output) -> Json:
    """Harden the numbers that several columns have for a row as one row: `{"setosa": [0.9], "virginica": [0.1]}`."""
    numbers = {name: list(map(alone, column)) for name, column in value.items() if isinstance(column, list)}
    names = _scores({name: [one for one in column if one is not None] for name, column in numbers.items()})
    for at in range(len(value[names[0]]) if names else 0):
        row = [name for name in names if numbers[name][at] is not None]
        for name, score in zip(row, _row([value[name][at] for name in row], output), strict=True):
            shown[name][at] = score
    return shown


def _harden(value: Json, output: Output, depth: int) -> Json:
    if depth == 0:
        msg = "nesting"
        raise ValueError(msg)
    if isinstance(value, dict):
        return _object(value, output, depth)
    if isinstance(value, list):
        return _list(value, output, depth)
    if isinstance(value, float):
        return harden_row([value], output)[0]
    return harden_text([value], output)[0] if isinstance(value, str) else value  # a label, true, false or null


def _list(values: list[Json], output: Output, depth: int) -> list[Json]:
    kinds = set(map(type, values))
    if not values:
        return []
    if kinds <= {int, float} or (kinds == {list} and None not in map(alone, values)):
        return _row(values, output)
    if kinds == {str}:
        return harden_text(values, output)
    if kinds == {dict} and (key := _score_key(values, output)):
        return _ranked(values, key, output, depth)
    if kinds == {list} and all(_is_pair(value) for value in values):
        pairs = [{"label": label, "score": score} for label, score in values]
        return [[pair["label"], pair["score"]] for pair in _ranked(pairs, "score", output, depth)]
    if kinds <= {dict, list, bool, type(None)} or _is_pair(values):
        _refuse_scattered(values, output)
        return [_harden(value, output, depth - 1) for value in values]
    msg = "a list of several kinds"
    raise ValueError(msg)


def _is_pair(value: Sequence[Json]) -> bool:
    """Say whether this is `["label", score]`, as TF Serving's `:classify` writes it."""
    return len(value) == 2 and isinstance(value[0], str) and type(value[1]) in {int, float}


def _row(values: Sequence[Json], output: Output) -> list[Json]:
    """Harden a row of such numbers; whole ones stay whole."""
    return list(map(_as_it_was, values, harden_row([alone(value) or 0 for value in values], output)))


def _as_it_was(old: Json, new: float) -> Json:
    if isinstance(old, list):
        return [_as_it_was(old[0], new)]
    return int(new) if isinstance(old, int) else new


def _scores(columns: Mapping[str, Sequence[float | None]]) -> list[str]:
    """Return which of several names are the scores of one row, or of each of several: more than one, or none.

    A whole number above 1 beside fractions is a label, not a score.
    """
    found = {name: column for name, column in columns.items() if column and None not in column}
    if any(isinstance(number, float) for column in found.values() for number in column):
        found = {
            name: column for name, column in found.items()
            if {0, 1}.issuperset(column) or any(isinstance(number, float) for number in column)
        }  # fmt: skip
    return list(found) if len(found) > 1 else []


def _single(value: Mapping[str, Json]) -> dict[str, Sequence[float | None]]:
    return {name: [alone(entry)] for name, entry in value.items()}


def _object(value: Mapping[str, Json], output: Output, depth: int) -> dict[str, Json]:
    """Harden the numbers of an object as one row; no order of names tells more than their scores."""
    _refuse_scores_in_names(value)
    if columns := _columns(value, output):
        return _aligned(value, columns, output, depth)
    row = one_row(value, output)
    _refuse_scattered([entry for name, entry in value.items() if name not in row], output)
    rest = {name: _harden(entry, output, depth - 1) for name, entry in value.items() if name not in row}
    shown = _kept(list(row.items()), list(row.values()), None if rest else _most(output))
    return rest | dict(shown)


def one_row(value: Mapping[str, Json], output: Output) -> dict[str, Json]:
    """Return the numbers of an object that are the scores of one row, under the profile. Raise ValueError."""
    names = _scores(_single(value))
    return dict(zip(names, _row([value[name] for name in names], output), strict=True))


def _refuse_scores_in_names(value: Mapping[str, Json]) -> None:
    for name in value:
        if harden_text([name], _LABEL) != [name]:
            msg = "a name that may hold a score"
            raise ValueError(msg)


def _most(output: Output) -> int | None:
    """Return how many classes the profile shows. If not all, it must be known which scores belong together."""
    return 1 if output.label_only else output.top_k


def _score_key(values: Sequence[Mapping[str, Json]], output: Output) -> str | None:
    """Return the key under which each of several objects has its one score, if that is what they are."""
    found = {name for value in values for name, entry in value.items() if isinstance(alone(entry), float)}
    if len(values) < 2 or not found:
        return None
    single = len(found) == 1 and None not in [alone(value.get(key)) for key in found for value in values]
    # Where no word says which class it is, a 0 or 1 beside the score may be a score too.
    nameless = any(len(_scores(_single(value))) > 1 and str not in map(type, value.values()) for value in values)
    if single and not (nameless and _most(output) is not None):
        return found.pop()
    if _most(output) is not None:  # each may be a row by itself, or a class
        msg = "objects of scores in a list" + APART
        raise ValueError(msg)
    return None


def _refuse_scattered(values: Sequence[Json], output: Output) -> None:
    if _most(output) is not None and lone.places(values) > 1:
        msg = "scores in several places" + APART
        raise ValueError(msg)


def _columns(value: Mapping[str, Json], output: Output) -> list[str]:
    """Return the keys of an object of as many words as scores: `{"labels": […], "scores": […]}`."""
    lists = {name: entry for name, entry in value.items() if isinstance(entry, list) and len(entry) > 1}
    rows = [name for name, entry in lists.items() if None not in map(alone, entry)]
    words = [
        name for name, entry in lists.items()
        if set(map(type, entry)) == {str} and len(entry) in {len(lists[row]) for row in rows}
    ]  # fmt: skip
    if words and len(rows) > 1 and _most(output) is not None:
        msg = "words beside scores of several kinds" + APART
        raise ValueError(msg)
    return [*rows, *words] if words and len(rows) == 1 else []


def _aligned(value: Mapping[str, Json], columns: Sequence[str], output: Output, depth: int) -> dict[str, Json]:
    scores, *words = columns
    shown = _row(value[scores], output)
    labels = [harden_text(value[name], output) for name in words]
    rows = _kept([list(row) for row in zip(shown, *labels, strict=True)], shown, _most(output))
    aligned = {name: [row[number] for row in rows] for number, name in enumerate(columns)}
    return {
        name: aligned[name] if name in aligned else _harden(entry, output, depth - 1) for name, entry in value.items()
    }


def _ranked(values: Sequence[Mapping[str, Json]], key: str, output: Output, depth: int) -> list[Json]:
    """Harden labelled scores as one row, and leave out those that are suppressed."""
    scores = _row([value[key] for value in values], output)
    shown: list[Json] = []
    for value, score in zip(values, scores, strict=True):
        _refuse_scores_in_names(value)
        shown.append(
            {name: score if name == key else _harden(entry, output, depth - 1) for name, entry in value.items()}
        )
    return _kept(shown, scores, _most(output))


def _kept(entries: Sequence[Json], scores: Sequence[Json], most: int | None) -> list[Json]:
    """Return the entries with the best scores, best first; equal ones in an order that tells nothing."""
    order = sorted(range(len(entries)), key=lambda index: (-(alone(scores[index]) or 0), encode(entries[index])))
    return [entries[index] for index in order[:most]]
