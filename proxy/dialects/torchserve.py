"""`torchserve`: TorchServe's own inference API.

https://pytorch.org/serve/inference_api.html. Management and metrics are on other ports; `/models`, `/api-description`
and `OPTIONS /` stay closed here. Its other paths, `/v1` and `/v2`, are other dialects.

A body that is not JSON, or the one file `data` of a form, is one input and one row; only a detector of encoded images
looks into it. Not guaranteed: that a handler makes one prediction of it.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from proxy.dialects import images, loose_json, multipart, strict_json
from proxy.dialects.loose_json import JSON_HEADERS, Json, encode
from proxy.dialects.table import SEGMENT, Line, Table
from proxy.errors import Malformed, UnsupportedMediaType
from proxy.exchange import (
    Action,
    Cost,
    Hardened,
    Headers,
    Images,
    Inputs,
    KnownParameter,
    Naming,
    Output,
    Parameters,
    Query,
    Reply,
    Target,
)

_MODEL = rf"/predictions/(?P<model>{SEGMENT})(?:/(?P<version>{SEGMENT}))?"

ACTIONS = (
    Line("POST", _MODEL, Action.INFER),
    Line("PUT", _MODEL, Action.INFER),
    Line("GET", r"/ping", Action.HEALTH),
)
_TABLE = Table(ACTIONS)

_OPAQUE = frozenset({b"application/octet-stream", b"image/jpeg", b"image/png", b"text/plain"})
_PART = b"data"  # of a form: what `curl -F data=@FILE` sends
_BEFORE_JSON = b" \t\r\n\v\f\0\xef\xbb\xbf\xfe\xff"  # white space, and how UTF-8, UTF-16 and UTF-32 begin
_document = msgspec.json.Decoder()


class TorchServe(loose_json.WithoutStreams):
    """TorchServe."""

    name = "torchserve"
    naming = Naming.PATH
    readiness = "/ping"
    parameters: Mapping[str, KnownParameter] = MappingProxyType({})
    manages: frozenset[Action] = frozenset()

    def classify(self, method: str, path: str, query: str) -> Target | None:
        """Look the path up in `ACTIONS`."""
        return _TABLE.find(method, path, query)

    def read(self, target: Target, headers: Headers, body: bytes, allowed: Parameters) -> Query:  # noqa: ARG002 - it knows none
        """Read JSON and count its rows; anything else is one row."""
        if target.action is not Action.INFER:
            loose_json.refuse_body(body)
            return Query(Cost(), b"", ())
        kind = loose_json.media_type(headers)
        if kind == b"application/json":
            return _read_json(body)
        if kind == multipart.FORM:
            (given,) = [value for name, value in headers if name == b"content-type"]
            kind, content = multipart.only_part(given, body, _PART)
            _refuse_unseen(kind, content)
            written, form = multipart.form(_PART, kind, content)
            return Query(Cost(rows=1), form, written, _image(content))
        _refuse_unseen(kind, body)
        return Query(Cost(rows=1), body, ((b"content-type", kind),), _image(body))

    def harden(self, target: Target, query: Query, reply: Reply, output: Output) -> Hardened:
        """Rebuild the reply, which is often one without a content type."""
        if target.action is Action.HEALTH:
            return Hardened(JSON_HEADERS, b'{"status":"Healthy"}')
        found = loose_json.read_reply(reply, untyped=True)
        rows = query.cost.rows
        shown = loose_json.harden(found, output) if rows == 1 else loose_json.harden_rows(found, rows, output)
        return Hardened(JSON_HEADERS, encode(shown))


def _image(content: bytes) -> Images:
    return Images(lambda: [content], len(content))


def _refuse_unseen(kind: bytes, content: bytes) -> None:
    # JSON under another name would pay for one row, whatever is in it.
    if kind not in _OPAQUE or content.lstrip(_BEFORE_JSON)[:1] in {b"[", b"{"}:
        raise UnsupportedMediaType(detail="content type")
    if not content:
        raise Malformed(detail="no input")


def _read_json(body: bytes) -> Query:
    document: Json = strict_json.decode(_document, body)
    encoded = encode(document)
    strict_json.refuse_duplicates(body, encoded)
    rows = _rows(document)
    if not rows:
        raise Malformed(detail="no rows")
    features: Inputs | None = loose_json.features(rows)
    if features is None:
        features = images.of_rows(rows, len(body))
    return Query(Cost(rows=len(rows)), encoded, JSON_HEADERS, features)


def _rows(document: Json) -> list[Json]:
    """A list is a batch, also under `instances`; every other value is one row."""
    if isinstance(document, dict) and isinstance(document.get("instances"), list):
        document = document["instances"]
    return document if isinstance(document, list) else [document]
