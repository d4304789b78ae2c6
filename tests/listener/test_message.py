"""The pure judgement of a head, apart from any socket; one invariant under arbitrary bytes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.listener import Limits, clean_target
from proxy.listener.message import read_head
from proxy.listener.rejection import Rejected


@given(st.one_of(st.binary(max_size=60), st.text("/.%;\\?#a2eEfF0:@", max_size=30).map(str.encode)))
def test_any_target_is_passed_as_it_is_or_refused(raw: bytes) -> None:
    """Invariant: what passes is byte for byte what was sent, and no reader can normalise it into something else."""
    try:
        path, query = clean_target(raw if raw.startswith(b"/") else b"/" + raw)
    except Rejected:
        return
    sent = (raw if raw.startswith(b"/") else b"/" + raw).decode("ascii")
    assert sent == (f"{path}?{query}" if query else path)
    assert not re.search(r"//|%|;|\\|#|[^!-~]", path)
    assert not {".", ".."} & set(path.split("/"))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"host", b"expect", b"content-length", b"transfer-encoding", b"x"]),
            st.one_of(st.binary(max_size=8), st.sampled_from([b"h", b"chunked", b"3"])),
        ),
        max_size=5,
    )
)
def test_any_header_section_has_one_reading(fields: list[tuple[bytes, bytes]]) -> None:
    """Invariant: what passes has exactly one Host and at most one framing field."""
    try:
        read_head("POST", "1.1", b"/", fields, Limits())
    except Rejected:
        return
    names = [name for name, _ in fields]
    assert names.count(b"host") == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1


@pytest.mark.parametrize("length", [b"0", b"00", b"000"])
def test_expect_without_a_body_asks_for_nothing(length: bytes) -> None:
    fields = [(b"host", b"h"), (b"expect", b"100-Continue"), (b"content-length", length)]
    assert read_head("POST", "1.1", b"/", fields, Limits()).expects_continue is False
