"""Steps 2 and 3 of the one way, with a policy that names the real provider."""

import time

from openid import AAL2, Provider

from proxy.adapters.keys import JwksKeyRing
from proxy.exchange import Action, Call, Denial, Grant, Peer, Principal, Target
from proxy.identity.authenticator import Authenticator
from proxy.policy.compile import compile_policy
from proxy.policy.decide import authorize

POLICY = """\
version: v1
issuers:
  corp:
    issuer: {issuer}
    audience: inference-proxy
    discovery: true
    algorithms: [ES256, EdDSA]
    roles_claim: realm_access.roles
    mfa: {{any_amr: [otp], acr_values: ["{aal2}"]}}
upstreams:
  main: {{url: "{upstream}", dialect: oip-v2}}
models:
  digits: {{upstream: main}}
budgets:
  daily: [1000 requests/day]
outputs:
  coarse: {{decimals: 2}}
rules:
  - id: analysts-infer
    allow: {{roles: [analyst], actions: [infer], models: [digits]}}
    mfa: {{max_age: 10m}}
    budget: daily
    output: coarse
"""


class Clock:
    """The machine's time, as the provider has it, and as much later as a test says."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


async def no_body() -> bytes:
    return b""


class House:
    """One process's part of it: keys, verdicts, policy."""

    def __init__(self, provider: Provider) -> None:
        self.clock = Clock()
        self.ring = JwksKeyRing(self.clock)
        self.authenticator = Authenticator(self.ring, self.clock)
        text = POLICY.format(issuer=provider.issuer, aal2=AAL2, upstream="http://127.0.0.1:1")
        self.policy = compile_policy({"policy.yaml": text.encode()})

    async def who(self, token: str) -> Principal:
        fields = ((b"host", b"proxy.example.com"), (b"authorization", b"Bearer " + token.encode()))
        call = Call("POST", "/v2/models/digits/infer", "", fields, Peer("127.0.0.1"), no_body)
        return await self.authenticator.authenticate(call, self.policy.issuers, self.policy.digest)

    async def decide(self, token: str) -> Grant | Denial:
        target = Target(Action.INFER, "digits")
        upstream = self.policy.models["digits"].upstream
        return authorize(self.policy, await self.who(token), target, upstream, "127.0.0.1", now=self.clock.now())
