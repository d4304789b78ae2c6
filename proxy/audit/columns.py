"""The records as tables: columns and their SQL types, derived from the record types themselves, so they cannot drift.

Decides the names of columns (`actor.subject` is `actor_subject`) and what a field that was left out of the JSON means:
its default. SQL in DuckDB's dialect.
"""

import types
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from proxy.record import AnyEvent, Completion, Decision

ENVELOPE = {"stream": "VARCHAR", "seq": "BIGINT", "prev": "VARCHAR", "t_ns": "BIGINT", "mono_ns": "BIGINT"}
_PLAIN = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}

VIEWS = ("decisions", "completions", "requests", "refusals", "policy_changes", "events")

SPAN_COLUMNS = {
    "trace": "VARCHAR",
    "incident": "VARCHAR",
    "start_ns": "BIGINT",
    "end_ns": "BIGINT",
    "decision": "VARCHAR",
    "reason": "VARCHAR",
    "stream": "VARCHAR",
    "decision_seq": "BIGINT",
    "decision_hash": "VARCHAR",
    "completion_seq": "BIGINT",
    "completion_hash": "VARCHAR",
    "unrecorded": "BOOLEAN",
}


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    source: str  # SQL


def line_columns() -> dict[str, str]:
    """Return the columns of a journal line with their SQL types, for every event type together."""
    found = dict(ENVELOPE) | {"type": "VARCHAR"}
    for event in get_args(AnyEvent):
        for field in msgspec.structs.fields(event):
            kind = _sql(field.type)
            if found.setdefault(field.name, kind) != kind:
                found[field.name] = "JSON"  # two events mean different things by one name
    return found


def view_statements() -> list[str]:
    """Return the statements that make the named views over the table `line`."""
    head = "stream, seq, make_timestamp_ns(t_ns) AS ts"
    decided, completed = _select(Decision), _select(Completion)
    more = ", ".join(
        f"c.{column.name} AS {column.name if column.name not in _names(Decision) else 'completion_' + column.name}"
        for column in _flat(Completion)
        if column.name != "event"
    )
    requests = f"d.*, c.seq AS completion_seq, c.ts AS completed_ts, c.seq IS NOT NULL AS completed, {more}"
    policy = "effect, policy, previous, coalesce(findings, 0) AS findings"
    views = {
        "decisions": f"{head}, {decided} FROM line WHERE type = 'decision'",
        "completions": f"{head}, {completed} FROM line WHERE type = 'completion'",
        "requests": f"{requests} FROM decisions d LEFT JOIN completions c USING (stream, event)",
        "refusals": "* FROM decisions WHERE effect = 'deny'",
        "policy_changes": f"{head}, {policy} FROM line WHERE type = 'policy'",
        "events": f"{head}, type, event FROM line",
    }
    return [f"CREATE VIEW {name} AS SELECT {what}" for name, what in views.items()]


def span_view_statements() -> list[str]:
    """Return the statements that set requests beside their spans: over the tables `line` and `span`."""
    times = "make_timestamp_ns(start_ns) AS started, make_timestamp_ns(end_ns) AS ended"
    found = """CASE
        WHEN s.unrecorded THEN 'let pass without a record'
        WHEN s.incident IS NOT NULL AND s.stream = '' THEN 'refused without a record'
        WHEN d.event IS NULL THEN 'span without record'
        WHEN s.incident IS NULL THEN 'record without span'
        WHEN d.event <> s.incident OR n.prev <> s.decision_hash THEN 'contradiction'
        ELSE 'agrees' END"""
    pairs = """(SELECT * FROM decisions WHERE method <> '') d
        FULL JOIN span s ON d.stream = s.stream AND d.seq = s.decision_seq
        LEFT JOIN line n ON n.stream = d.stream AND n.seq = d.seq + 1"""  # `prev` is the hash of the record before
    both = "coalesce(d.stream, s.stream) AS stream, coalesce(d.seq, s.decision_seq) AS seq, d.ts"
    said = "coalesce(d.event, s.incident) AS event, d.effect, d.reason, s.decision AS span_effect, s.trace"
    views = {"spans": f"*, {times} FROM span", "reconciliation": f"{both}, {said}, {found} AS found FROM {pairs}"}
    return [f"CREATE VIEW {name} AS SELECT {what}" for name, what in views.items()]


def _names(event: type[msgspec.Struct]) -> set[str]:
    return {column.name for column in _flat(event)}


def _select(event: type[msgspec.Struct]) -> str:
    return ", ".join(f"{column.source} AS {column.name}" for column in _flat(event))


def _flat(event: type[msgspec.Struct]) -> list[_Column]:
    columns = []
    for field in msgspec.structs.fields(event):
        inner = _inner(field.type)
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            columns += _nested(field.name, inner)
        else:
            columns.append(_Column(field.name, _defaulted(f'"{field.name}"', field)))
    return columns


def _nested(path: str, inner: type[msgspec.Struct]) -> list[_Column]:
    columns = []
    for field in msgspec.structs.fields(inner):
        source, name = f'{path}."{field.name}"', f"{path.replace('.', '_')}_{field.name}"
        deeper = _inner(field.type)
        if isinstance(deeper, type) and issubclass(deeper, msgspec.Struct):
            columns += _nested(f"{path}.{field.name}", deeper)
        else:
            columns.append(_Column(name, f"CASE WHEN {path} IS NOT NULL THEN {_defaulted(source, field)} END"))
    return columns


def _defaulted(source: str, field: msgspec.structs.FieldInfo) -> str:
    match field.default:
        case bool() as flag:
            return f"coalesce({source}, {str(flag).lower()})"
        case int() | float() as number:
            return f"coalesce({source}, {number})"
        case str() as text:
            return f"coalesce({source}, '{text}')"
        case ():
            return f"coalesce({source}, [])"
        case _:
            return source


def _inner(kind: Any) -> Any:
    """Return the type of an optional field."""
    if get_origin(kind) in {Union, types.UnionType}:
        (inner,) = [one for one in get_args(kind) if one is not type(None)]
        return inner
    return kind


def _sql(kind: Any) -> str:
    kind = _inner(kind)
    if get_origin(kind) is Literal:
        return "VARCHAR"
    if get_origin(kind) is tuple:
        return _sql(get_args(kind)[0]) + "[]"
    if issubclass(kind, msgspec.Struct):
        members = ", ".join(f'"{field.name}" {_sql(field.type)}' for field in msgspec.structs.fields(kind))
        return f"STRUCT({members})"
    return _PLAIN[kind]
