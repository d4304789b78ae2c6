"""Reads one YAML document into plain values and remembers where each of them stands.

Decides what a configuration document may be made of: one UTF-8 document of mappings with text keys, lists, text,
numbers, true and false. Everything that makes a reader and a program disagree is refused: duplicate keys, keys without
a value (nothing, or everything?), anchors, aliases, merge keys, tags, directives, invisible characters. It does not
know what a document means.

Standard: YAML 1.2.2, https://yaml.org/spec/1.2.2/, core schema (section 10.3) without octal and hexadecimal numbers,
`.inf` and `.nan`: those stay text, and text is refused where a number must stand.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from proxy.errors import ConfigError, Finding

MAX_BYTES = 1 << 20  # bytes of one document
MAX_DEPTH = 32  # lists and mappings inside each other
MAX_DIGITS = 18  # of a whole number, so that it fits 64 bits

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value]"
Path: TypeAlias = tuple[str | int, ...]  # from the document's root: keys and list positions (from 0)
Place: TypeAlias = tuple[int, int]  # line and column, from 1

# Control, format and separator characters that an editor does not show (Unicode categories Cc, Cf, Zl, Zp, Cs), among
# them those that reorder a line under a reviewer's eyes (CVE-2021-42574). Tab and line ends stay.
INVISIBLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    r"\ufeff\ufff9-\uffff\U000e0000-\U000e007f]|\r(?!\n)"
)

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(rf"[-+]?(?:0|[1-9][0-9]{{0,{MAX_DIGITS - 1}}})")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class _Problem:
    """What ruamel.yaml says, and what it means to the person who wrote the line."""

    words: str
    message: str
    hint: str
    unclosed: bool = False  # then the place to look at is where it was opened


_PROBLEMS = (
    _Problem("found character '\\t'", "a tab", "indent with spaces"),
    _Problem("cannot start any token", "this character cannot begin a value", "put the value in quotes"),
    _Problem("mapping values are not allowed", "unexpected `:`", "check the indentation, or put the text in quotes"),
    _Problem("could not find expected ':'", "a key without `:`", "write `key: value`"),
    _Problem("unexpected end of stream", "a quote that is never closed", "close it with the same kind of quote", True),
    _Problem("unknown escape", "an unknown escape in double quotes", "use single quotes: in them `\\` means itself"),
    _Problem("expected ',' or '}'", "a `{` that is not closed", "look for a missing `,` or `}`", True),
    _Problem("expected ',' or ']'", "a `[` that is not closed", "look for a missing `,` or `]`", True),
    _Problem("sequence entries are not allowed", "a list entry (`-`) cannot stand here", "put it on its own line"),
    _Problem("expected <block end>", "this line does not line up with those before it", "check the indentation"),
)


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was read. `name` is what messages call it: the file's name."""

    name: str
    value: Value
    places: Mapping[Path, tuple[Place, Place]]  # of the key (or list entry), and of its value

    def place(self, path: Path) -> Place:
        """Return where a key or list entry stands; the nearest one around it when it is not there."""
        return self._nearest(path)[0]

    def place_of_value(self, path: Path) -> Place:
        """Return where the value of a key stands; the nearest one around it when it is not there."""
        return self._nearest(path)[1] if path in self.places else self._nearest(path)[0]

    def finding(self, path: Path, message: str, hint: str = "", *, value: bool = False) -> Finding:
        """Return a finding at a key, or at its value."""
        line, column = self.place_of_value(path) if value else self.place(path)
        return Finding(self.name, line, column, message, hint)

    def _nearest(self, path: Path) -> tuple[Place, Place]:
        while path not in self.places:
            path = path[:-1]  # the root, (), is always there
        return self.places[path]


def parse(name: str, data: bytes) -> Document:
    """Read one document, or raise ConfigError with everything that is wrong with its form."""
    text = _text(name, data)
    reader = _Reader(name)
    loader = YAML(typ="safe", pure=True)
    try:
        value = reader.document(iter(loader.parse(text)))
    except MarkedYAMLError as error:
        reader.findings.append(_syntax(name, error))
        raise ConfigError(reader.findings) from error
    except YAMLError as error:
        raise ConfigError([Finding(name, 0, 0, "not YAML", "write `key: value` lines")]) from error
    if reader.findings:
        raise ConfigError(reader.findings)
    return Document(name, value, reader.places)


def _text(name: str, data: bytes) -> str:
    """Decode the bytes. What an editor would not show is refused here, before a YAML rule could give it a meaning."""
    if len(data) > MAX_BYTES:
        raise ConfigError([Finding(name, 0, 0, f"the file is larger than {MAX_BYTES >> 20} MiB", "split it")])
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line, column = _position(data[: error.start].decode())
        raise ConfigError([Finding(name, line, column, "not UTF-8 text", "save the file as UTF-8")]) from error
    if not text.strip():
        raise ConfigError([_empty(name)])
    hidden = INVISIBLE.search(text)
    if hidden:
        line, column = _position(text[: hidden.start()])
        message = f"invisible character U+{ord(hidden[0][0]):04X}"
        raise ConfigError([Finding(name, line, column, message, "delete it; the file must be plain text")])
    return text


def _empty(name: str) -> Finding:
    return Finding(name, 0, 0, "the file is empty", "write something in it, or delete it")


def _position(before: str) -> Place:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _syntax(name: str, error: MarkedYAMLError) -> Finding:
    said = str(error.problem or error.context or "")
    unknown = _Problem("", "this is not YAML", "check quotes, brackets and indentation around this place")
    problem = next((problem for problem in _PROBLEMS if problem.words in said), unknown)
    mark = (error.context_mark if problem.unclosed else error.problem_mark) or error.problem_mark or error.context_mark
    line, column = _place(mark) if mark else (0, 0)
    return Finding(name, line, column, problem.message, problem.hint)


def _place(mark: StreamMark) -> Place:
    return mark.line + 1, mark.column + 1


def _absent(event: Event) -> bool:
    """Say whether a value is not written at all: then only its key has a place."""
    return isinstance(event, ScalarEvent) and not event.value and not event.style


class _Reader:
    """Turns the parser's events into values. Recursion is bounded by MAX_DEPTH."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[Path, tuple[Place, Place]] = {}
        self.findings: list[Finding] = []

    def document(self, events: Iterator[Event]) -> Value:
        value: Value = ""
        for event in events:
            if not isinstance(event, DocumentStartEvent):
                continue  # the ends of the stream and of the document
            if event.version or event.tags:
                self._refuse(event, "a `%` directive before this line", "delete it: files are YAML 1.2")
            if self.places:
                self._refuse(event, "more than one YAML document", "keep one: delete this line and the rest")
                return value
            root = next(events)
            if _absent(root):
                break
            self.places[()] = (_place(root.start_mark), _place(root.start_mark))
            value = self._value(root, events, ())
        if not self.places:
            self.findings.append(_empty(self.name))
        return value

    def _refuse(self, event: Event, message: str, hint: str) -> None:
        line, column = _place(event.start_mark)
        self.findings.append(Finding(self.name, line, column, message, hint))

    def _value(self, event: Event, events: Iterator[Event], path: Path) -> Value:
        if isinstance(event, NodeEvent):
            self._plain(event)
        if isinstance(event, ScalarEvent):
            value = self._scalar(event)
            if value is None:
                line, column = self.places[path][0]
                key = f"`{path[-1]}`" if path else "the file"
                entry = path and isinstance(path[-1], int)
                what = "an entry without a value" if entry else f"{key} has no value"
                self.findings.append(Finding(self.name, line, column, what, "write one, or delete the line"))
                return ""
            return value
        if isinstance(event, AliasEvent):
            return ""
        if len(path) >= MAX_DEPTH:
            line, column = _place(event.start_mark)
            raise ConfigError([Finding(self.name, line, column, f"more than {MAX_DEPTH} levels deep", "flatten it")])
        return self._list(events, path) if isinstance(event, SequenceStartEvent) else self._mapping(events, path)

    def _plain(self, event: NodeEvent) -> None:
        """Refuse what would let a value mean something that does not stand at its place."""
        if isinstance(event, AliasEvent):
            self._refuse(event, f"an alias (`*{event.anchor}`)", "write the value out")
        elif event.anchor is not None:
            self._refuse(event, f"an anchor (`&{event.anchor}`)", "delete it, and write the value out where it is used")
        if getattr(event, "tag", None) is not None:
            self._refuse(event, "a tag (`!`)", "delete it: a value is what it looks like")

    def _scalar(self, event: ScalarEvent) -> bool | int | float | str | None:
        text: str = event.value
        hidden = INVISIBLE.search(text)
        if hidden:  # written as an escape: "\u0000"
            self._refuse(event, f"invisible character U+{ord(hidden[0][0]):04X} in a text", "delete the escape")
        if event.style:  # quoted, or a block: text, whatever it looks like
            return text
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        return text

    def _list(self, events: Iterator[Event], path: Path) -> list[Value]:
        items: list[Value] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            here = (*path, len(items))
            self.places[here] = (_place(event.start_mark), _place(event.start_mark))
            items.append(self._value(event, events, here))
        return items

    def _mapping(self, events: Iterator[Event], path: Path) -> dict[str, Value]:
        members: dict[str, Value] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            key = self._key(event, events, path)
            value = next(events)
            here = (*path, key)
            if key in members:
                line, _ = self.places[here][0]
                self._refuse(event, f"duplicate key `{key}`", f"it already stands in line {line}: keep one of the two")
                self._value(value, events, here)
                continue
            self.places[here] = (_place(event.start_mark), _place((event if _absent(value) else value).start_mark))
            members[key] = self._value(value, events, here)
        return members

    def _key(self, event: Event, events: Iterator[Event], path: Path) -> str:
        if not isinstance(event, ScalarEvent):
            self._value(event, events, path)
            self._refuse(event, "a key that is not text", "a key is one word")
            return ""
        self._plain(event)
        key = self._scalar(event)
        if key == "<<" and not event.style:
            self._refuse(event, "a merge key (`<<`)", "write the keys out")
        elif not isinstance(key, str):
            self._refuse(event, f"the key `{event.value}` is not text", "put the key in quotes")
        return str(event.value)
