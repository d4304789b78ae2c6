"""The raw-socket corpus: each case fed whole, byte by byte, and with another request behind it.

The invariant of every case: the statuses in order, exactly those requests at the application, the connection's fate,
and one refusal told for each message that the listener answered itself.
"""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from proxy.listener import Limits

DATA = Path(__file__).parent.parent / "data" / "raw_http"
LIMITS = Limits(target_bytes=200, header_bytes=2_000, header_count=10, body_bytes=1_000)
TAIL = b"GET /tail HTTP/1.1\r\nHost: h\r\n\r\n"


def cases() -> list[Any]:
    yaml = YAML(typ="safe")
    found = [case for file in ("framing.yaml", "head.yaml") for case in yaml.load(DATA / file)]
    targets = yaml.load(DATA / "target.yaml")
    for verdict, answers, end in (("passed", [200], "open"), ("refused", [400], "closed")):
        for target in targets[verdict]:
            # the authority and asterisk forms come with methods that are refused for themselves; here as GET
            send = f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"
            paths = [target] if verdict == "passed" else []
            found.append({"name": f"target {target!r}", "send": send, "answers": answers, "paths": paths, "end": end})
    return [pytest.param(case, id=case["name"]) for case in found]


def message(case: dict[str, Any]) -> bytes:
    with_ = case.get("with", "x")
    return (case["send"] + with_ * (case.get("fill", 0) // len(with_))).encode("latin-1")


@pytest.mark.parametrize("feeding", ["whole", "bytewise", "with a tail"])
@pytest.mark.parametrize("case", cases())
async def test_case(case: dict[str, Any], feeding: str, recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, LIMITS) as house:
        client = await house.connect()
        sent = message(case) + (TAIL if feeding == "with a tail" else b"")
        await client.feed(sent, bytewise=feeding == "bytewise")
        for status in case["answers"]:
            got, headers, body = await client.answer(case.get("method", "GET"))
            assert got == status, body
            if status >= 400:
                assert headers[b"connection"] == b"close"
        paths = list(case.get("paths", []))
        if case["end"] == "open":
            if feeding != "with a tail":
                await client.feed(TAIL)
            assert (await client.answer())[0] == 200
            paths.append("/tail")
        else:
            assert await client.end() == b""
        assert [hit.target.decode() for hit in recorder.hits] == paths
        for hit, body in zip(recorder.hits, case.get("bodies", []), strict=False):
            assert hit.body.decode() == body
        names = {name for hit in recorder.hits for name, _ in hit.headers}
        assert not names & {name.encode() for name in case.get("absent", [])}
        ours = sum(status >= 400 for status in case["answers"]) if not case.get("paths") else 0
        if case["name"] == "pipelined-then-bad":
            ours = 1
        assert len(house.refused) == ours
