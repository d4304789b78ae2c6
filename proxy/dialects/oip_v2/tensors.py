"""Tensors in messages: shapes that agree with their data, in JSON or in the bytes behind it.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md: the header
`Inference-Header-Content-Length` says where the JSON ends; the data of every tensor with a `binary_data_size` follows
in the order of the tensors. So sizes cannot overlap; they must add up to exactly what is there.
"""

import math
from collections.abc import Iterable
from typing import Any

from proxy.dialects.oip_v2.datatypes import TEXTS, Datatype, Unreadable
from proxy.exchange import Headers

MAX_TENSORS = 64  # inputs or outputs in one message
MAX_RANK = 8  # dimensions of a tensor
MAX_ELEMENTS = 1 << 24  # numbers in one tensor
MAX_TEXTS = 1 << 16  # elements of one BYTES tensor
MAX_NAME = 256  # characters of a tensor's name or a request id
ALIGNMENT = 8  # bytes: where the data of the first tensor begins, so that it can be read where it lies

JSON_END = b"inference-header-content-length"
JSON: Headers = ((b"content-type", b"application/json"),)


def binary(json_bytes: int) -> Headers:
    """Return the headers of a message whose JSON has so many bytes."""
    return ((b"content-type", b"application/octet-stream"), (JSON_END, b"%d" % json_bytes))


def aligned(json: bytes) -> bytes:
    """Return JSON that ends where numbers may begin: RFC 8259 section 2 lets white space follow."""
    return json + b" " * (-len(json) % ALIGNMENT)


def parted(headers: Headers, body: bytes) -> tuple[bytes, memoryview]:
    """Return the JSON, and the bytes behind it."""
    given = [value for name, value in headers if name == JSON_END]
    if not given:
        return body, memoryview(b"")
    if len(given) > 1 or not given[0].isdigit() or len(given[0]) > len(str(len(body))):
        raise Unreadable("Inference-Header-Content-Length is not one number within the body")
    end = int(given[0])
    if end > len(body):
        raise Unreadable("Inference-Header-Content-Length is beyond the body")
    return body[:end], memoryview(body)[end:]


def cut(rest: memoryview, sizes: Iterable[int | None]) -> list[memoryview | None]:
    """Return the bytes of each tensor that has some."""
    found: list[memoryview | None] = []
    at = 0
    for size in sizes:
        if size is None:
            found.append(None)
            continue
        if not 0 <= size <= len(rest) - at:
            raise Unreadable("a binary_data_size that is not there")
        found.append(rest[at : at + size])
        at += size
    if at != len(rest):
        raise Unreadable("bytes that belong to no tensor")
    return found


def elements(shape: list[int], kind: Datatype) -> int:
    """Return how many elements a shape has; a tensor without elements or without sides is refused."""
    if not 0 < len(shape) <= MAX_RANK or min(shape) < 1:
        raise Unreadable("shape")
    count = math.prod(shape)
    if count > (MAX_TEXTS if kind.family is TEXTS else MAX_ELEMENTS):
        raise Unreadable("shape too large")
    return count


def flat(data: list[Any], kind: Datatype, count: int) -> list[Any]:
    """Return the JSON data row by row."""
    kinds = set(map(type, data))
    found = data
    if list in kinds:
        found = leaves(data)
        kinds = set(map(type, found))
    if len(found) != count:
        raise Unreadable("shape and data do not agree")
    if not kinds <= kind.kinds:
        raise Unreadable(kind.name + " data of another kind")
    return found


def checked(raw: memoryview, kind: Datatype, count: int) -> memoryview:
    """Return the raw data of a tensor of numbers: exactly as many bytes as its shape says."""
    if kind.wire is not None and len(raw) != count * kind.wire.itemsize:
        raise Unreadable("shape and binary_data_size do not agree")
    return raw


def leaves(data: list[Any], depth: int = MAX_RANK) -> list[Any]:
    """Return what nested lists hold, row by row."""
    kinds = set(map(type, data))
    if list not in kinds:
        return data
    if depth <= 1 or len(kinds) > 1:
        raise Unreadable("nesting")
    return [leaf for item in data for leaf in leaves(item, depth - 1)]
