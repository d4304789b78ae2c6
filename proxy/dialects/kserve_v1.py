"""`kserve-v1`: the v1 protocol of KServe and TensorFlow Serving.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol and
https://www.tensorflow.org/tfx/serving/api_rest. A model's status says its name and whether it is ready, nothing else;
its signature (`/metadata`) stays closed. Not guaranteed: that a model has the shape that its client believes.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from proxy.dialects import images, loose_json, strict_json
from proxy.dialects.loose_json import JSON_HEADERS, Json, encode, unreadable
from proxy.dialects.parameters import permitted
from proxy.dialects.table import SEGMENT, Line, Table
from proxy.errors import Malformed
from proxy.exchange import (
    Action,
    Cost,
    Hardened,
    Headers,
    Inputs,
    KnownParameter,
    Naming,
    Output,
    Parameters,
    Query,
    Reply,
    Target,
)

_MODEL = rf"/v1/models/(?P<model>{SEGMENT})(?:/versions/(?P<version>[0-9]{{1,18}}))?"

ACTIONS = (
    Line("POST", rf"{_MODEL}:predict", Action.INFER, "predict"),
    Line("POST", rf"{_MODEL}:classify", Action.INFER, "examples"),
    Line("POST", rf"{_MODEL}:regress", Action.INFER, "examples"),
    Line("GET", _MODEL, Action.METADATA),
    Line("GET", r"/v1/models", Action.METADATA),
)
_TABLE = Table(ACTIONS)


class _Predict(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`instances` row by row, or `inputs` column by column."""

    instances: list[Json] | msgspec.UnsetType = msgspec.UNSET
    inputs: Json | msgspec.UnsetType = msgspec.UNSET
    signature_name: str | msgspec.UnsetType = msgspec.UNSET


class _Examples(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `:classify` and `:regress`. `context` is common to all examples."""

    examples: list[dict[str, Json]]
    context: dict[str, Json] | msgspec.UnsetType = msgspec.UNSET
    signature_name: str | msgspec.UnsetType = msgspec.UNSET


_predict_decoder = msgspec.json.Decoder(_Predict)
_examples_decoder = msgspec.json.Decoder(_Examples)


class KserveV1(loose_json.WithoutStreams):
    """The v1 protocol."""

    name = "kserve-v1"
    naming = Naming.PATH
    readiness = None  # TF Serving and KServe have none in common
    # Another signature is another road: it may name the logits.
    parameters: Mapping[str, KnownParameter] = MappingProxyType({"signature_name": KnownParameter()})
    manages: frozenset[Action] = frozenset()

    def classify(self, method: str, path: str, query: str) -> Target | None:
        """Look the path up in `ACTIONS`."""
        return _TABLE.find(method, path, query)

    def read(self, target: Target, headers: Headers, body: bytes, allowed: Parameters) -> Query:
        """Read the rows, and count them."""
        if target.action is not Action.INFER:
            loose_json.refuse_body(body)
            return Query(Cost(), b"", ())
        loose_json.require_json(headers)
        request: _Predict | _Examples
        if target.form == "predict":
            request = strict_json.decode(_predict_decoder, body)
            rows = _rows(request)
        else:
            request = strict_json.decode(_examples_decoder, body)
            rows = request.examples
        encoded = encode(request)
        strict_json.refuse_duplicates(body, encoded)
        if not rows:
            raise Malformed(detail="no rows")
        if not isinstance(request.signature_name, msgspec.UnsetType):
            permitted("signature_name", request.signature_name, allowed)
        return Query(Cost(rows=len(rows)), encoded, JSON_HEADERS, _features(request, rows, len(body)))

    def harden(self, target: Target, query: Query, reply: Reply, output: Output) -> Hardened:
        """Rebuild the reply from the rows in it."""
        if target.action is Action.METADATA:
            shown: Json = _status(target, reply)
        else:
            shown = _shown(target, query, loose_json.read_reply(reply), output)
        return Hardened(JSON_HEADERS, encode(shown))


def _features(request: _Predict | _Examples, rows: list[Json], size: int) -> Inputs | None:
    if isinstance(request, _Examples) and request.context:  # may hold any input of every example: no row is the whole
        return None
    found = loose_json.features(rows)
    return images.of_rows(rows, size) if found is None else found


def _rows(request: _Predict) -> list[Json]:
    if not isinstance(request.instances, msgspec.UnsetType):
        if not isinstance(request.inputs, msgspec.UnsetType):
            raise Malformed(detail="both `instances` and `inputs`")
        return request.instances
    if isinstance(request.inputs, msgspec.UnsetType):
        raise Malformed(detail="neither `instances` nor `inputs`")
    return loose_json.by_row(request.inputs)


def _shown(target: Target, query: Query, reply: Json, output: Output) -> Json:
    key = next((one for one in _RESULTS[target.form] if isinstance(reply, dict) and one in reply), None)
    if key is None:
        raise unreadable("no results")
    return {key: loose_json.harden_rows(reply[key], query.cost.rows, output)}


_RESULTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"predict": ("predictions", "outputs"), "examples": ("results", "result")}
)


def _status(target: Target, reply: Reply) -> Json:
    """KServe says `ready`, TF Serving lists the state of each version: one form for both."""
    if target.model is None:
        return {"models": list(target.models)}
    found = loose_json.read_reply(reply)
    if not isinstance(found, dict):
        raise unreadable("status")
    versions = found.get("model_version_status")
    states = [one.get("state") for one in versions if isinstance(one, dict)] if isinstance(versions, list) else []
    return {"name": target.model, "ready": str(found.get("ready")).lower() == "true" or "AVAILABLE" in states}
