"""The first policy before a server, and the configuration that serves it: what `hip init` writes. Pure: text only.

Closed is the start: one role, one rule, MFA in the floor, a budget, rounded answers, no management and no streams.
The files are the policy language as a person would write it, to be read and changed. Whoever writes them to disk puts
them to `compile_policy` first: nothing here is trusted because we wrote it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from proxy.dialects import DIALECTS
from proxy.dialects.table import SEGMENT
from proxy.documents.names import NAME_PATTERN
from proxy.exchange import Naming

UPSTREAM = "server"
RULE = "first-rule"
ALONE = "model"  # the name of a model that nobody has named: requests name none, or the server does not care

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9._/-]*")  # needs no quotes in YAML …
_WORDS = frozenset({"null", "true", "false"})  # … unless it is one of these
_NAME = re.compile(NAME_PATTERN)
_SEGMENT = re.compile(SEGMENT)
_ENDINGS = re.compile(r"\.(?:gguf|safetensors|onnx)$", re.IGNORECASE)
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")

_HEAD = "# yaml-language-server: $schema=policy.schema.json\nversion: v1\n"


@dataclass(frozen=True, slots=True)
class Provider:
    """Who makes the tokens. `keys` is the line that says where the public keys are."""

    name: str
    issuer: str
    audience: str
    keys: str
    algorithms: str
    roles_claim: str
    remark: str


@dataclass(frozen=True, slots=True)
class Server:
    """The server and its models: the policy's name -> the server's own."""

    url: str
    dialect: str
    models: Mapping[str, str]
    plaintext: bool = False
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Ports:
    """Where `hip serve` will listen, on this machine only."""

    data: int
    admin: int


def names(dialect: str, listed: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Return the policy's names for a server's models, and those that no policy can name.

    Where the path names the model, the name is the server's. Where the body does, the policy may choose: the last part
    of `/models/llama-3-8b.gguf`, which is nobody's business, is enough.
    """
    chosen: dict[str, str] = {}
    left: list[str] = []
    for model in listed:
        name = model
        if DIALECTS[dialect].naming is Naming.BODY:
            name = _OTHER.sub("-", _ENDINGS.sub("", model.rstrip("/").rpartition("/")[2])).strip("-._")[:64]
        if _NAME.fullmatch(name) and _SEGMENT.fullmatch(name) and name not in {*chosen, "any"}:
            chosen[name] = model
        else:
            left.append(model)
    return chosen, left


def starter(server: Server, provider: Provider, role: str, ports: Ports) -> Mapping[str, str]:
    """Return the files by their paths under the directory: the configuration, the policy and its tests."""
    models = list(server.models)
    tokens = DIALECTS[server.dialect].naming is Naming.BODY
    return {
        "hip.yaml": _CONFIG.format(port=ports.data, admin=ports.admin),
        "policies/10-identity.yaml": _IDENTITY.format(
            head=_HEAD,
            remark=provider.remark,
            name=provider.name,
            issuer=json.dumps(provider.issuer),
            audience=json.dumps(provider.audience),
            keys=provider.keys,
            algorithms=provider.algorithms,
            roles_claim=json.dumps(provider.roles_claim),
        ),
        "policies/20-models.yaml": _HEAD + _models(server),
        "policies/30-limits.yaml": _LIMITS.format(
            head=_HEAD,
            budget="60 requests/minute, 200000 tokens/day" if tokens else "120 requests/minute, 20000 rows/day",
        ),
        "policies/40-rules.yaml": _RULES.format(
            head=_HEAD, rule=RULE, role=word(role), models=", ".join(map(word, models))
        ),
        "policies/tests/first.yaml": _TESTS.format(
            rule=RULE, role=word(role), other=word(f"not-{role}"[:64]), model=word(models[0]), upstream=UPSTREAM
        ),
    }


def word(text: str) -> str:
    """Return a text as YAML reads it back: quoted, unless it is plain."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text)


def _models(server: Server) -> str:
    more = f", ca_file: {json.dumps(server.ca_file)}" if server.ca_file else ""
    remark = ""
    if server.plaintext:
        more += ", plaintext: allowed"
        remark = "# Plain HTTP to another machine: everyone on the way reads inputs and scores, and can change them.\n"
    lines = [f"  {UPSTREAM}: {{url: {json.dumps(server.url)}, dialect: {server.dialect}{more}}}"]
    entries = []
    for name, model in server.models.items():
        served = f", served_as: {json.dumps(model)}" if model != name else ""
        entries.append(f"  {word(name)}: {{upstream: {UPSTREAM}{served}}}")
    return f"\n{remark}upstreams:\n{_lines(lines)}\n{_MODELS_REMARK}models:\n{_lines(entries)}"


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


_CONFIG = """\
version: v1
listen:
  host: 127.0.0.1 # this machine only; 0.0.0.0 once others may reach it
  port: {port}
  tls: {{certificate: certs/server.crt, key: certs/server.key}}
admin: {{host: 127.0.0.1, port: {admin}}} # health and metrics, without authentication
policies: policies
audit: {{directory: audit}}
"""

_IDENTITY = """\
{head}
{remark}issuers:
  {name}:
    issuer: {issuer}
    audience: {audience}
    {keys}
    algorithms: {algorithms}
    roles_claim: {roles_claim}

floor:
  mfa: required # no rule may say otherwise
  output: {{decimals: 4}} # nor show more digits
"""

_MODELS_REMARK = "# A model that is not here does not exist for callers, whatever the server has.\n"

_LIMITS = """\
{head}
# How much each caller may ask. All limits of a budget hold at once.
budgets:
  first: [{budget}]

# How exactly an answer may speak: two digits, scores for the best three classes only.
outputs:
  coarse: {{decimals: 2, top_k: 3}}
"""

_RULES = """\
{head}
# What no rule allows is denied. Management (load, unload, configuration, statistics, documentation) and `stream` are
# open to nobody here: an action is open only to whom a rule names it.
rules:
  - id: {rule}
    allow: {{roles: [{role}], actions: [infer, metadata, health], models: [{models}]}}
    mfa: {{max_age: 8h}} # signed in today
    budget: first
    output: coarse
"""

_TESTS = """\
version: v1

# `hip check policies` runs these.
tests:
  - name: who has the role and signed in this morning gets coarse scores
    principal: {{roles: [{role}], amr: [pwd, otp], signed_in: 3h}}
    request: {{action: infer, model: {model}}}
    expect: {{effect: allow, rule: {rule}, budget: first, output: {{decimals: 2, top_k: 3}}, mfa: required}}

  - name: a password alone is not enough
    principal: {{roles: [{role}], amr: [pwd], signed_in: 1m}}
    request: {{action: infer, model: {model}}}
    expect: {{effect: deny, reason: mfa_missing}}

  - name: after a day they have to sign in again
    principal: {{roles: [{role}], amr: [pwd, otp], signed_in: 1d}}
    request: {{action: infer, model: {model}}}
    expect: {{effect: deny, reason: mfa_too_old}}

  - name: another role gets nothing
    principal: {{roles: [{other}], amr: [pwd, otp], signed_in: 1m}}
    request: {{action: infer, model: {model}}}
    expect: {{effect: deny, reason: no_rule}}

  - name: nobody loads or unloads a model
    principal: {{roles: [{role}], amr: [pwd, otp], signed_in: 1m}}
    request: {{action: repository, upstream: {upstream}}}
    expect: {{effect: deny, reason: no_rule}}
"""
