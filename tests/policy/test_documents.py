"""proxy.documents: what a document may be made of, where things stand in it, and how faults are told."""

import string
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from proxy.documents import Closed, Name, parse, render, validate
from proxy.documents.reading import MAX_BYTES, MAX_DEPTH
from proxy.errors import ConfigError, Finding


def faults(text: str | bytes) -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(ConfigError) as caught:
        parse("f", data)
    return [str(finding) for finding in caught.value.findings]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", {"a": 1}),
        ("a: -7", {"a": -7}),
        ("a: 1.5", {"a": 1.5}),
        ("a: 2e3", {"a": 2000.0}),
        ("a: true", {"a": True}),
        ("a: text with words", {"a": "text with words"}),
        ("a: '1'", {"a": "1"}),
        ('a: "true"', {"a": "true"}),
        ("a: |\n  one\n  two\n", {"a": "one\ntwo\n"}),
        ("a: []\nb: {}", {"a": [], "b": {}}),
        ("- 1\n- [2, 3]\n", [1, [2, 3]]),
        ("---\na: 1\n", {"a": 1}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        ("'null': x", {"null": "x"}),
        # what YAML 1.1 and 1.2 disagree about stays text
        ("a: [yes, no, on, off]", {"a": ["yes", "no", "on", "off"]}),
        ("a: 0o17", {"a": "0o17"}),
        ("a: 017", {"a": "017"}),
        ("a: 0x1F", {"a": "0x1F"}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: 12:30:00", {"a": "12:30:00"}),
        ("a: 2026-11-21", {"a": "2026-11-21"}),
        ("a: .inf", {"a": ".inf"}),
        ("a: .nan", {"a": ".nan"}),
        ("a: 1e999", {"a": "1e999"}),
        ("a: 1234567890123456789012345", {"a": "1234567890123456789012345"}),
    ],
)
def test_values(text: str, value: object) -> None:
    read = parse("f", text.encode()).value
    assert read == value
    assert repr(read) == repr(value)  # 1 is not True, 2000.0 is not 2000


def test_places_are_those_of_keys_entries_and_values() -> None:
    document = parse("f", b"a:\n  - x\n  - {b: 1}\nc: {d: e}\n")
    assert document.place(("a",)) == (1, 1)
    assert document.place(("a", 1)) == (3, 5)
    assert document.place(("a", 1, "b")) == (3, 6)
    assert document.place_of_value(("a", 1, "b")) == (3, 9)
    assert document.place_of_value(("c", "d")) == (4, 8)


def test_the_place_of_what_is_not_there_is_that_of_the_nearest_thing_around_it() -> None:
    document = parse("f", b"a:\n  b: {c: 1}\n")
    assert document.place(("a", "b", "x", 3)) == document.place_of_value(("a", "b", "x", 3)) == (2, 3)
    assert document.place(("nowhere",)) == (1, 1)


def test_a_document_of_a_mebibyte_is_read_and_one_byte_more_is_not() -> None:
    padding = b"# " + b"x" * (MAX_BYTES - len(b"a: 1\n") - 3) + b"\n"
    assert parse("f", b"a: 1\n" + padding).value == {"a": 1}
    assert faults(b"a: 1\n" + padding + b"#") == ["f: the file is larger than 1 MiB (split it)"]


def test_depth_is_capped() -> None:
    assert parse("f", b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert "levels deep" in faults("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))[0]


def test_all_faults_of_form_are_told_at_once() -> None:
    assert len(faults("a: &x 1\nb: *x\nc: !!str 1\na: 2\nd:\n")) == 5


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet=string.printable, max_size=200).map(str.encode))
def test_any_bytes_are_a_document_or_a_config_error(data: bytes) -> None:
    """Nothing that somebody may save as a file makes the reader fail in another way, or takes its places away."""
    try:
        assert parse("f", data).place(()) >= (1, 1)
    except ConfigError as error:
        shown = render(error.findings, {"f": data})
        if not shown:
            pytest.fail("a refusal without a finding")


# ── validation ──────────────────────────────────────────────────────────────────────────────────────────────────


class Item(Closed):
    """An entry."""

    size: Annotated[int, Field(ge=1)] = Field(description="How large.")
    mode: Literal["hard", "soft"] = "hard"


class Sample(Closed):
    """A document."""

    items: dict[Name, Item] = Field({})
    flag: bool = False
    words: tuple[str, ...] = ()


def messages(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(parse("f", text.encode()), Sample)
    return [str(finding) for finding in caught.value.findings]


def test_a_document_becomes_the_model() -> None:
    sample = validate(parse("f", b"items: {a: {size: 3, mode: soft}}\nwords: [x]\n"), Sample)
    assert sample == Sample(items={"a": Item(size=3, mode="soft")}, words=("x",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("items: {a: {}}", "f:1:9: `a`: `size` is missing (How large.)"),
        ("items: {a: {size: 0}}", "f:1:19: `size` must be at least 1 (How large.)"),
        ("items: {a: {size: 1.0}}", "f:1:19: `size` must be a whole number, not the number `1.0`"),
        ("items: {a: {size: true}}", "f:1:19: `size` must be a whole number, not `true`"),
        (
            "items: {a: {size: 1, mode: sofd}}",
            "f:1:28: `mode` cannot be `sofd`, did you mean `soft`? (one of: hard, soft)",
        ),
        ("items: {a: {size: 1, moed: soft}}", "f:1:22: unknown key `moed`, did you mean `mode`?"),
        ("items: {a: {size: 1, other: 1}}", "f:1:22: unknown key `other` (known keys: mode, size)"),
        ("flag: 1", "f:1:7: `flag` must be true or false, not the number `1`"),
        ('flag: "true"', "f:1:7: `flag` must be true or false, not the text `true`"),
        ("words: x", "f:1:8: `words` must be a list, not the text `x` (write it in square brackets: `[a, b]`)"),
        ("words: [x, 2]", "f:1:12: an entry of `words` must be text, not the number `2` (put it in quotes)"),
        ("items: [a]", "f:1:8: `items` must be a group of `key: value` lines, not a list"),
        ("'<text>': 1", "f:1:1: unknown key `<text>` (known keys: flag, items, words)"),
        ("'[key]': 1", "f:1:1: unknown key `[key]` (known keys: flag, items, words)"),
        ("text", "f:1:1: the file must be a group of `key: value` lines, not the text `text`"),
    ],
)
def test_faults_are_told_in_words(text: str, message: str) -> None:
    assert messages(text) == [message]


def test_all_faults_are_told_in_the_order_of_the_lines() -> None:
    assert [line.split(":")[1] for line in messages("words: 1\nflag: 1\nitems: 1\nother: 1\n")] == ["1", "2", "3", "4"]


# ── rendering ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finding_is_shown_with_its_line_and_a_mark_under_the_word() -> None:
    finding = Finding("f", 2, 9, "wrong", "mend it")
    assert render([finding], {"f": b"one\n  two: [three, four]\n"}).splitlines() == [
        "f:2:9: wrong",
        "    2 |   two: [three, four]",
        "      |         ^^^^^",
        "    hint: mend it",
    ]


def test_a_finding_without_a_place_or_source_is_shown_without_a_line() -> None:
    assert render([Finding("f", 0, 0, "gone")], {}) == "f: gone"
    assert render([Finding("f", 9, 1, "gone")], {"f": b"one line"}) == "f:9:1: gone"


def test_a_hostile_file_cannot_speak_to_the_terminal() -> None:
    shown = render([Finding("f", 1, 1, "wrong")], {"f": b"\x1b]0;title\x07 \xe2\x80\xae \xff"})
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_a_long_line_is_cut_around_the_fault() -> None:
    shown = render([Finding("f", 1, 5001, "wrong")], {"f": b"x" * 5000 + b" here " + b"x" * 5000})
    assert "here" in shown
    assert len(shown) < 500
