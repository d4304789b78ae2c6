"""The encoded images of a request, for a detector of images: where servers take them in JSON and in BYTES. Pure.

TF Serving and KServe v1 have `{"b64": …}` (https://www.tensorflow.org/tfx/serving/api_rest#encoding_binary_values), by
itself or under the name of an input; TorchServe's handlers read `{"data": …}` and `{"body": …}`. An element of a BYTES
tensor is the file itself, or base64 of it, as MLServer takes both. A row is exactly one image and nothing beside it:
what nobody looks at is where an attack would be. Not guaranteed: that it is an image; a detector decodes it.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from proxy.errors import Malformed
from proxy.exchange import Images
from proxy.reasons import Reason

KEYS = frozenset({"b64", "data", "body"})
MAX_DEPTH = 4  # of an input in an object in a list
FILES = (b"\x89PNG", b"\xff\xd8")  # how the files begin that a detector decodes, neither of which is base64


def of_rows(rows: Sequence[Any], size: int) -> Images:
    """Return what rows of JSON hold, of a request of `size` bytes."""
    return Images(partial(_read_rows, rows), size)


def of_elements(read: Callable[[], Sequence[bytes]], size: int) -> Images:
    """Return what the elements of BYTES tensors hold, one a row."""
    return Images(lambda: [file_of(element) for element in read()], size)


def file_of(element: bytes) -> bytes:
    """Return the file that an element is, or holds in base64. Raise Malformed(SCHEMA_MISMATCH)."""
    return element if element.startswith(FILES) else _from_base64(element)


def _read_rows(rows: Sequence[Any]) -> list[bytes]:
    return [_from_base64(_text(row)) for row in rows]


def _text(row: Any) -> bytes:
    name: str | None = None
    for _ in range(MAX_DEPTH):
        if isinstance(row, str) and name in KEYS:
            return row.encode()
        if not isinstance(row, dict | list) or len(row) != 1:
            break
        name, row = next(iter(row.items())) if isinstance(row, dict) else (name, row[0])
    raise Malformed(Reason.SCHEMA_MISMATCH, "a row that is not one encoded image")


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise Malformed(Reason.SCHEMA_MISMATCH, "an image that is not in base64") from exc
