"""`openai`: chat, completions and embeddings as OpenAI's API has them: vLLM, llama.cpp, LitServe, TGI, OpenAI.

https://platform.openai.com/docs/api-reference. The body names the model; callers know it by the policy's name, the
server by `served_as`. Tokens are estimated and reserved before, and paid as `usage` says or as much as flowed.
`/tokenize`, `/pooling`, `/score`, `/load_model`, `/docs` and whatever else a server has stay closed.

Not guaranteed: anything about the text itself. A model that is asked to write down its scores may do so.
"""

from collections.abc import Mapping

from proxy.dialects import loose_json
from proxy.dialects.loose_json import JSON_HEADERS, encode, unreadable
from proxy.dialects.openai import requests
from proxy.dialects.openai.fields import PARAMETERS
from proxy.dialects.openai.replies import estimated, rebuilt
from proxy.dialects.openai.stream import Chunks
from proxy.dialects.table import Line, Table
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
    Line("POST", r"/v1/chat/completions", Action.INFER, "chat", complete=requests.complete),
    Line("POST", r"/v1/completions", Action.INFER, "completions", complete=requests.complete),
    Line("POST", r"/v1/embeddings", Action.INFER, "embeddings", complete=requests.complete),
    Line("GET", r"/v1/models", Action.METADATA),
    Line("GET", r"/health", Action.HEALTH),
)
_TABLE = Table(ACTIONS)


class OpenAi:
    """OpenAI's API and what speaks it."""

    name = "openai"
    naming = Naming.BODY
    readiness = "/health"
    parameters: Mapping[str, KnownParameter] = PARAMETERS
    manages: frozenset[Action] = frozenset()

    def classify(self, method: str, path: str, query: str) -> Target | None:
        """Look the path up in `ACTIONS`."""
        return _TABLE.find(method, path, query)

    def read(self, target: Target, headers: Headers, body: bytes, allowed: Parameters) -> Query:
        """Read the fields, and estimate the tokens."""
        if target.form:
            return requests.read(target, headers, body, allowed)
        loose_json.refuse_body(body)
        return Query(Cost(), b"", ())

    def harden(self, target: Target, query: Query, reply: Reply, output: Output) -> Hardened:
        """Rebuild the answer."""
        if target.action is Action.HEALTH:
            return Hardened(JSON_HEADERS, b"{}")
        if target.action is Action.METADATA:
            return Hardened(JSON_HEADERS, _models(target))
        if (reply.value(b"content-type") or b"").partition(b";")[0].strip().lower() != b"application/json":
            raise unreadable("content type")
        shown = rebuilt(target, query, reply.body, output, chunk=False)
        return Hardened(JSON_HEADERS, shown.body, shown.cost or estimated(query, shown.text_bytes))

    def stream(self, target: Target, query: Query, begun: Reply, output: Output) -> Chunks:
        """Rebuild each chunk."""
        kind = (begun.value(b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind != b"text/event-stream" or begun.value(b"content-encoding") not in {None, b"identity"}:
            raise unreadable("not a plain event stream")
        return Chunks(target, query, output)


def _models(target: Target) -> bytes:
    """Return the models that the caller may know of; the server's own list says paths, owners and permissions."""
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "inference"} for name in target.models]
    return encode({"object": "list", "data": models})
