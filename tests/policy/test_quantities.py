"""Durations, sizes and rates: what people write, and what they may not write."""

from typing import Any

import pytest

from proxy.documents import Closed, json_schema, parse, validate
from proxy.documents.quantities import Bytes, Rate, Seconds, WholeSeconds
from proxy.errors import ConfigError
from proxy.exchange import Unit, Window


class Sample(Closed):
    """One of each."""

    seconds: Seconds = 0.0
    whole: WholeSeconds = 0
    bytes: Bytes = 0
    rate: Rate | None = None


def read(key: str, text: str) -> Any:
    return getattr(validate(parse("f", f"{key}: {text}\n".encode()), Sample), key)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seconds", "500ms", 0.5),
        ("seconds", "10s", 10.0),
        ("seconds", "5m", 300.0),
        ("seconds", "8h", 28_800.0),
        ("seconds", "1d", 86_400.0),
        ("whole", "2000ms", 2),
        ("whole", "8h", 28_800),
        ("bytes", "1B", 1),
        ("bytes", "512KiB", 524_288),
        ("bytes", "16MiB", 16_777_216),
        ("bytes", "1GiB", 1_073_741_824),
        ("rate", "60 requests/minute", Window(Unit.REQUESTS, 60, 60)),
        ("rate", "1 request/second", Window(Unit.REQUESTS, 1, 1)),
        ("rate", "1000 rows/day", Window(Unit.ROWS, 1000, 86_400)),
        ("rate", "5000 tokens/hour", Window(Unit.TOKENS, 5000, 3600)),
        ("rate", "20 requests per 10s", Window(Unit.REQUESTS, 20, 10)),
        ("rate", "20 requests/10s", Window(Unit.REQUESTS, 20, 10)),
    ],
)
def test_what_people_write(key: str, text: str, value: object) -> None:
    assert read(key, text) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(
            ("seconds", text)
            for text in ("10", "0s", "-1s", "1.5s", "10 s", "10S", "1w", "367d", '""', "[10s]", "true")
        ),
        *(("whole", text) for text in ("500ms", "10", "1500ms")),
        *(("bytes", text) for text in ("16", "16MB", "16M", "0B", "16 MiB", "2000000GiB")),
        *(("rate", text) for text in ("60", "60/minute", "60 requests", "0 rows/day", "1.5 rows/day", "1 row/1500ms")),
        *(
            ("rate", text)
            for text in ("9 rows/0s", "9 rows/week", "-9 rows/day", "9 Rows/day", "9000000000000 rows/day")
        ),
    ],
)
def test_what_nobody_may_write(key: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(key, text)
    (finding,) = caught.value.findings
    assert f"`{key}` must be" in finding.message


def test_the_schema_says_how_to_write_them() -> None:
    properties = json_schema(Sample)["properties"]
    assert all({"pattern", "examples"} <= properties[key].keys() for key in Sample.model_fields)
