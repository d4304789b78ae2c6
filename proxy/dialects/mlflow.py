"""`mlflow`: the scoring server of `mlflow models serve`.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/#inference-endpoints. One server has one model and no
request names it, so the policy has one model behind this dialect. `/version` and `/docs` stay closed.

Read are `inputs`, `instances`, `dataframe_split` and `dataframe_records` as JSON, and CSV with a header line. `params`
is refused unless a rule allows it: what it means is the model's own. Refused are the forms of language models
(`messages`, `prompt`), and Parquet: a reader of that format would be more code than this proxy.
"""

import csv
from collections.abc import Mapping
from io import StringIO
from types import MappingProxyType
from typing import Annotated

import msgspec

from proxy.dialects import loose_json, strict_json
from proxy.dialects.loose_json import JSON_HEADERS, Json, encode, unreadable
from proxy.dialects.parameters import permitted
from proxy.dialects.table import Line, Table
from proxy.errors import Malformed, UnsupportedMediaType
from proxy.exchange import (
    Action,
    Cost,
    Hardened,
    Headers,
    KnownParameter,
    Naming,
    Output,
    Parameters,
    Query,
    Reply,
    Target,
)

ACTIONS = (
    Line("POST", r"/invocations", Action.INFER, sole=True),
    Line("GET", r"/ping|/health", Action.HEALTH),
)
_TABLE = Table(ACTIONS)
PARAMS = "params"
_CSV_HEADERS: Headers = ((b"content-type", b"text/csv"),)


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_Scalar = bool | int | float | str
_Scalars = Annotated[list[_Scalar], msgspec.Meta(max_length=1024)]  # a parameter may be declared as an array
MAX_PARAMS = 64


class _Split(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A pandas data frame, split."""

    data: list[list[Json]]
    columns: list[str] | msgspec.UnsetType = msgspec.UNSET
    index: list[Json] | msgspec.UnsetType = msgspec.UNSET


class _Request(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The input, in one of four forms."""

    inputs: Json | msgspec.UnsetType = msgspec.UNSET
    instances: Json | msgspec.UnsetType = msgspec.UNSET
    dataframe_split: _Split | msgspec.UnsetType = msgspec.UNSET
    dataframe_records: list[dict[str, Json]] | msgspec.UnsetType = msgspec.UNSET
    params: dict[_Name, _Scalar | _Scalars] | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.json.Decoder(_Request)


class MLflow(loose_json.WithoutStreams):
    """MLflow's scoring server."""

    name = "mlflow"
    naming = Naming.NOWHERE
    readiness = "/ping"
    parameters: Mapping[str, KnownParameter] = MappingProxyType({PARAMS: KnownParameter()})
    manages: frozenset[Action] = frozenset()

    def classify(self, method: str, path: str, query: str) -> Target | None:
        """Look the path up in `ACTIONS`."""
        return _TABLE.find(method, path, query)

    def read(self, target: Target, headers: Headers, body: bytes, allowed: Parameters) -> Query:
        """Read the rows, and count them."""
        if target.action is not Action.INFER:
            loose_json.refuse_body(body)
            return Query(Cost(), b"", ())
        match loose_json.media_type(headers):
            case b"application/json":
                return _read_json(body, allowed)
            case b"text/csv":
                return _read_csv(body)
        raise UnsupportedMediaType(detail="content type")

    def harden(self, target: Target, query: Query, reply: Reply, output: Output) -> Hardened:
        """Rebuild `predictions`."""
        if target.action is Action.HEALTH:
            return Hardened(JSON_HEADERS, b"{}")
        found = loose_json.read_reply(reply)
        if not isinstance(found, dict) or "predictions" not in found:
            raise unreadable("no predictions")
        predictions = loose_json.harden_rows(found["predictions"], query.cost.rows, output)
        return Hardened(JSON_HEADERS, encode({"predictions": predictions}))


def _read_json(body: bytes, allowed: Parameters) -> Query:
    request = strict_json.decode(_decoder, body)
    encoded = encode(request)
    strict_json.refuse_duplicates(body, encoded)
    if not isinstance(request.params, msgspec.UnsetType):
        if len(request.params) > MAX_PARAMS:
            raise Malformed(detail="number of params")
        permitted(PARAMS, True, allowed)
    forms = (request.inputs, request.instances, request.dataframe_split, request.dataframe_records)
    given = [form for form in forms if not isinstance(form, msgspec.UnsetType)]
    if len(given) != 1:
        raise Malformed(detail="not exactly one form of the input")
    rows = given[0].data if isinstance(given[0], _Split) else loose_json.by_row(given[0])
    if not rows:
        raise Malformed(detail="no rows")
    return Query(Cost(rows=len(rows)), encoded, JSON_HEADERS, loose_json.features(rows))


def _read_csv(body: bytes) -> Query:
    """Read and write it again: what is forwarded has one reading."""
    try:
        lines = list(csv.reader(StringIO(body.decode(), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as exc:
        raise Malformed(detail=f"csv: {type(exc).__name__}") from exc
    if (
        b"\0" in body
        or len(lines) < 2
        or any(len(line) != len(lines[0]) for line in lines)
        or len(set(lines[0])) != len(lines[0])
    ):
        raise Malformed(detail="csv: no rows, rows of different lengths, a column twice, or a NUL")
    text = "".join(",".join(map(_quoted, line)) + "\n" for line in lines)
    rows = [[_number(cell) for cell in line] for line in lines[1:]]
    return Query(Cost(rows=len(rows)), text.encode(), _CSV_HEADERS, loose_json.features(rows))


def _quoted(cell: str) -> str:
    """RFC 4180 section 2.6 and 2.7."""
    if set(cell).isdisjoint('",\r\n'):
        return cell
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'


def _number(cell: str) -> float | str:
    try:
        return cell if "_" in cell else float(cell)  # Python alone reads 1_000 as a number
    except ValueError:
        return cell
