"""Where a request names its model: in its path, in its body, or nowhere. The one way is the same."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from proxy.errors import DependencyFault, TokenMissing
from proxy.exchange import Reply
from proxy.gateway import Gateway, Snapshot
from proxy.policy.compile import compile_policy
from proxy.policy.route import routes
from proxy.reasons import Reason
from tests.gateway.simulators import JSON, House, SimulatedAuthenticator, SimulatedUpstream, call, said

POLICY = """
version: v1
issuers:
  corp: {issuer: "https://idp.example", audience: proxy, jwks_file: keys.json, algorithms: [ES256], roles_claim: roles}
upstreams:
  llm: {url: "http://127.0.0.1:9001", dialect: openai}
  flow: {url: "http://127.0.0.1:9002", dialect: mlflow}
  v1: {url: "http://127.0.0.1:9003", dialect: kserve-v1}
models:
  llama: {upstream: llm, served_as: /srv/llama.gguf}
  closed: {upstream: llm}
  wine: {upstream: flow}
  iris: {upstream: v1}
budgets:
  few: [3 requests/minute, 100 rows/day]
outputs:
  coarse: {decimals: 2}
rules:
  - id: analysts
    allow: {roles: [analyst], actions: [infer, metadata], models: [llama, wine, iris]}
    budget: few
    output: coarse
"""
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]
CHAT_REPLY = {
    "choices": [{"index": 0, "message": {"content": "four"}}],
    "usage": {"prompt_tokens": 1, "total_tokens": 3},
}


class ThreeServers:
    """The simulated house with another policy in it."""

    def __init__(self, reply: Mapping[str, object], authenticator: SimulatedAuthenticator | None = None) -> None:
        policy = compile_policy({"policy.yaml": POLICY.encode()})
        snapshot = Snapshot(policy, routes(policy), {})
        self.upstream = SimulatedUpstream(Reply(200, JSON, json.dumps(reply).encode()))
        house = House(upstream=self.upstream, authenticator=authenticator or SimulatedAuthenticator())
        self.trail, self.ledger = house.trail, house.ledger
        self.gateway = Gateway(replace(house.gateway._world, snapshot=lambda: snapshot))

    async def ask(self, path: str, body: Mapping[str, object] | None = None, method: str = "POST"):
        raw = b"" if body is None else json.dumps(body).encode()
        return await self.gateway.handle(call(method, path, body=raw))


async def test_the_body_names_the_model_and_usage_settles():
    house = ThreeServers(CHAT_REPLY)
    answer = await house.ask(CHAT, {"model": "llama", "messages": HELLO})
    assert (answer.status, said(answer)["model"]) == (200, "llama")
    assert json.loads(house.upstream.sent[0].body)["model"] == "/srv/llama.gguf"
    assert house.trail.records[0].model == "llama"
    assert house.ledger.charges[0].tokens > 4096
    assert [cost.tokens for cost in house.ledger.settled] == [3]
    assert (house.trail.records[0].spent.tokens, house.trail.records[1].settled_tokens) == (
        house.ledger.charges[0].tokens,
        3,
    )


async def test_a_ledger_that_is_away_keeps_the_estimate_and_nothing_says_otherwise():
    house = ThreeServers(CHAT_REPLY)
    house.ledger.settling = DependencyFault(Reason.LEDGER_UNAVAILABLE)
    assert (await house.ask(CHAT, {"model": "llama", "messages": HELLO})).status == 200
    assert house.trail.records[1].settled_tokens is None


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"model": "closed", "messages": HELLO}, 403, "no_rule"),
        ({"model": "unknown", "messages": HELLO}, 404, "unknown_model"),
        ({"model": "wine", "messages": HELLO}, 404, "unknown_model"),
        ({"messages": HELLO}, 400, "malformed_body"),
        ({"model": "llama", "messages": HELLO, "stream": True}, 403, "no_rule"),
        ({"model": "llama", "messages": HELLO, "echo": True}, 400, "forbidden_parameter"),
    ],
    ids=["no rule", "unknown", "another server's", "none", "a stream", "a parameter"],
)
async def test_what_the_body_names_is_decided_like_what_a_path_names(body, status, reason):
    house = ThreeServers(CHAT_REPLY)
    answer = await house.ask(CHAT, body)
    assert (answer.status, house.trail.records[0].reason) == (status, reason)
    assert house.upstream.sent == []


async def test_without_a_token_no_body_is_read():
    house = ThreeServers(CHAT_REPLY, SimulatedAuthenticator(TokenMissing()))
    answer = await house.gateway.handle(call("POST", CHAT, body=AssertionError("was read")))
    assert (answer.status, house.trail.records[0].reason) == (401, "token_missing")


async def test_a_path_without_a_model_is_the_only_one_there_is():
    house = ThreeServers({"predictions": [[0.123456, 0.876544]]})
    answer = await house.ask("/invocations", {"inputs": [[1, 2]]})
    assert said(answer) == {"predictions": [[0.12, 0.88]]}
    assert house.trail.records[0].model == "wine"


async def test_two_dialects_may_share_a_prefix():
    """`/v1/models` belongs to KServe and to OpenAI; each path goes to the server that has its model."""
    house = ThreeServers({"predictions": [[0.123456, 0.876544]]})
    answer = await house.ask("/v1/models/iris:predict", {"instances": [[1, 2]]})
    assert said(answer) == {"predictions": [[0.12, 0.88]]}
    assert (await house.ask("/v1/models/llama:predict", {"instances": [[1, 2]]})).status == 404
