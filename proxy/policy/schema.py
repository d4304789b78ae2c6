"""The policy language, version 1: what may stand in a policy file. The JSON Schema that editors use comes from here.

One name, one meaning; every list is a list, every wildcard is the word `any`, and every weakening (`not_required`,
`plaintext: allowed`) is a word that stands out in a review. What the parts mean together is decided in
`proxy.policy.compile`; the language is taught in docs/policy.md.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Tag, WithJsonSchema, model_validator

from proxy.detection.sample import KEEP
from proxy.documents import Closed, Name, by_kind, fault, unique
from proxy.documents.quantities import Bytes, Rate, Seconds, WholeSeconds
from proxy.exchange import Action, Mode, Suspicion
from proxy.policy.facts import ClaimFacts, ClaimName
from proxy.policy.hours import WeekHours

MAX_DECIMALS = 15  # a double has no more that mean anything
MAX_CLASSES = 1000  # of `top_k`
MAX_RULES = 10_000  # in one file
MAX_COUNT = 10_000_000  # of a request parameter
MAX_REPLICAS = 64  # of one upstream

_POINTER = re.compile(r"(?:/(?:[^/~]|~[01])*)*")  # RFC 6901 section 3
_SHA256 = re.compile("[0-9a-f]{64}")

Text = Annotated[str, Field(min_length=1, max_length=256)]


def _not_any(items: tuple[str, ...]) -> tuple[str, ...]:
    if "any" in items:
        raise fault("must be the word `any`, or a list without it", "write `any` without the brackets")
    return items


def _digest(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise fault("must be 64 digits of 0-9 and a-f", "`sha256sum FILE` prints it")
    return text


def _pointer(text: str) -> str:
    if _POINTER.fullmatch(text) and text.split("/").count("*") <= 1:
        return text
    raise fault("`{text}` is not a JSON pointer", "like `/results/*/scores`, with one `*` at most", text=text)


Pointer = Annotated[str, AfterValidator(_pointer)]
Digest = Annotated[str, AfterValidator(_digest), WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{64}$"})]
Words = Annotated[
    tuple[Text, ...],
    Field(min_length=1, json_schema_extra={"uniqueItems": True}),
    AfterValidator(unique),
    AfterValidator(_not_any),
]
Names = Annotated[
    tuple[Name, ...],
    Field(min_length=1, json_schema_extra={"uniqueItems": True}),
    AfterValidator(unique),
    AfterValidator(_not_any),
]
AnyOrWords = Annotated[
    Annotated[Literal["any"], Tag("<text>")] | Annotated[Words, Tag("<list>")], by_kind("`any` or a list")
]
AnyOrNames = Annotated[
    Annotated[Literal["any"], Tag("<text>")] | Annotated[Names, Tag("<list>")], by_kind("`any` or a list")
]
ClaimPath = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[Annotated[tuple[Text, ...], Field(min_length=1)], Tag("<list>")],
    by_kind("a claim's name, or a list of names from the outside in"),
]
TokenTypes = Annotated[
    tuple[Annotated[str, Field(max_length=256)], ...],
    Field(min_length=1, json_schema_extra={"uniqueItems": True}),
    AfterValidator(unique),
]
Actions = Annotated[
    tuple[Action, ...], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(unique)
]


class MfaTerms(Closed):
    """What counts as multi-factor authentication."""

    any_amr: Words | None = Field(None, description="One of these methods must be in the token's `amr` (RFC 8176).")
    acr_values: Words | None = Field(None, description="Or the token's `acr` must be one of these.")
    max_age: WholeSeconds | None = Field(None, description="How long ago `auth_time` may be, like `8h`.")

    @model_validator(mode="after")
    def _says_something(self) -> "MfaTerms":
        if not (self.any_amr or self.acr_values or self.max_age):
            raise fault("must set `any_amr`, `acr_values` or `max_age`", "or leave `mfa` out")
        return self


class IssuerEntry(Closed):
    """An identity provider whose tokens count."""

    issuer: Text = Field(description="The tokens' `iss`, byte for byte.")
    audience: Text = Field(description="The `aud` that a token must have been issued for: this proxy.")
    jwks_uri: Text | None = Field(None, description="Where the public keys are. Or `jwks_file`, or `discovery: true`.")
    jwks_file: Text | None = Field(None, description="A file with the public keys; relative to the policy directory.")
    discovery: Literal[True] | None = Field(None, description="Find the keys by OpenID Connect Discovery.")
    algorithms: Annotated[
        tuple[Literal["ES256", "ES384", "EdDSA", "RS256", "PS256"], ...],
        Field(min_length=1, json_schema_extra={"uniqueItems": True}),
        AfterValidator(unique),
    ] = Field(description="The signature algorithms that its keys may use.")
    roles_claim: ClaimPath = Field(
        description="The claim that lists the roles: `realm_access.roles`, or a list if a name has a dot in it. "
        "`scope`: OAuth scopes, with a space between."
    )
    token_types: TokenTypes = Field(
        ("at+jwt", "application/at+jwt"),
        description='The `typ` of an access token (RFC 9068). `[""]`: tokens without one, as Kubernetes makes them.',
    )
    mfa: MfaTerms | None = Field(
        None, description="What counts as multi-factor here; without it, `mfa` or two kinds of factor in `amr`."
    )
    ca_file: Text | None = Field(None, description="PEM file with the CA of the provider's server.")
    leeway: WholeSeconds = Field(30, description="How far its clock may be from ours, at most 5m.")
    max_staleness: WholeSeconds = Field(3600, description="How long old keys serve while it is away, at most 1d.")


class WorkloadEntry(Closed):
    """A program that is known by its client certificate alone. It has no factors: its rules say `mfa: not_required`."""

    uri: Text | None = Field(
        None, description="The URI in the certificate, whole: `spiffe://example.org/scorer`. Or `dns`."
    )
    dns: Text | None = Field(
        None, description="The DNS name in the certificate, whole: `scorer.internal`. No wildcards."
    )
    roles: Words = Field(description="Its roles, for the rules.")


class GenericEntry(Closed):
    """Where a server keeps things that speaks no dialect: JSON pointers (RFC 6901), in which `*` is every row."""

    infer: Text = Field(description="The path of its requests, which are POST with JSON: `/classify`.")
    rows: Pointer = Field(description="In a request: the list of rows, like `/inputs`; an empty text: the whole body.")
    features: Pointer | None = Field(
        None, description="In a row: its numbers, for a detector; an empty text: the whole row."
    )
    scores: Annotated[tuple[Pointer, ...], Field(min_length=1)] = Field(
        description="In a reply: the scores of a row, like `/results/*/scores`."
    )
    labels: tuple[Pointer, ...] = Field((), description="In a reply: what is a label and no score.")
    health: Text | None = Field(None, description="The path of its health, which is GET.")


class HealthEntry(Closed):
    """How each replica is asked whether it is well; who is not gets no requests."""

    path: Text | None = Field(
        None, description="Asked with GET, 2xx is well: `/v2/health/ready`. Without it, what the dialect has for that."
    )
    every: Seconds = Field(2.0, description="How often, at least 100ms.")
    timeout: Seconds = Field(1.0, description="How long an answer may take.")
    down_after: Annotated[int, Field(ge=1, le=100)] = Field(
        2, description="After so many failures in a row it is passed over."
    )
    up_after: Annotated[int, Field(ge=1, le=100)] = Field(
        2, description="After so many successes in a row it is asked again."
    )


class UpstreamEntry(Closed):
    """A model server."""

    url: Text | None = Field(
        None, description="Where it is: `https://triton.internal:8000`, with a path if it has one. Or `urls`."
    )
    urls: (
        Annotated[
            tuple[Text, ...],
            Field(min_length=1, max_length=MAX_REPLICAS, json_schema_extra={"uniqueItems": True}),
            AfterValidator(unique),
        ]
        | None
    ) = Field(None, description="Where its replicas are; the one with the fewest requests under way is asked.")
    health: HealthEntry | None = Field(
        None, description="How replicas are asked whether they are well; with `urls`, they are in any case."
    )
    host: Text | None = Field(
        None, description="Callers reach it under this host alone: `iris.example.com`. A port does not count."
    )
    prefix: Text | None = Field(
        None, description="Callers reach it under this path: `/iris`. The server does not see the prefix."
    )
    dialect: Text = Field(description="The protocol it speaks: `oip-v2`.")
    generic: GenericEntry | None = Field(None, description="Where things are, if its dialect is `generic`.")
    timeout: Seconds = Field(10.0, description="From the request's first byte to the answer's last.")
    connect_timeout: Seconds = Field(2.0, description="To open a connection.")
    max_reply: Bytes = Field(16 << 20, description="The largest answer that is read.")
    max_connections: Annotated[int, Field(ge=1, le=10_000)] = Field(32, description="Connections at the same time.")
    ca_file: Text | None = Field(None, description="PEM file with the CA to trust instead of the system's.")
    client_certificate: Text | None = Field(None, description="PEM file with our certificate for this server.")
    client_key: Text | None = Field(None, description="PEM file with its private key.")
    public_key_sha256: Digest | None = Field(None, description="Only a server with this public key may answer.")
    plaintext: Literal["allowed"] | None = Field(
        None, description="`allowed`: speak plain HTTP to another machine. Everyone on the way reads and writes along."
    )


class CardEntry(Closed):
    """What a review asks about a model. `hip inventory` lists it and what is missing; no decision depends on it."""

    owner: Text | None = Field(None, description="Who answers for it: a team, a person, an address.")
    purpose: Text | None = Field(None, description="What it is for.")
    classification: Text | None = Field(
        None, description="The class of its data, in your organisation's words: `personal`, `internal`."
    )
    processors: Annotated[tuple[Text, ...], AfterValidator(unique)] | None = Field(
        None, description="Who else sees what callers send: sub-processors. `[]`: nobody."
    )
    datasheet: Text | None = Field(None, description="Where its datasheet or model card is.")
    lineage: dict[Name, Digest] = Field(
        {}, description="What it was made from, by SHA-256: `{weights: …, training-data: …}`."
    )


class RecordEntry(Closed):
    """Keeps a sample of what callers ask, for `hip detector fit`. Only who holds the private key can read it."""

    encrypt_to: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="A public key in PEM, X25519 or RSA, as a block after `|`. The private key stays elsewhere."
    )
    rows_per_minute: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="How many inputs of a minute are kept, chosen by chance; one of a request."
    )
    keep: WholeSeconds = Field(KEEP, description="How long, like `30d`; at least 1h.")


class ModelEntry(Closed):
    """A model that may be asked for. A model that is not here does not exist for callers."""

    upstream: Name = Field(description="The model server that has it.")
    labels: dict[Name, Text] = Field({}, description="Words about it, for rules with `model_labels`.")
    served_as: Text | None = Field(
        None, description="What its server calls it, where callers name it in the body: `/models/llama-3-8b`."
    )
    card: CardEntry | None = Field(None, description="What a review asks about it: `hip inventory`.")
    record_inputs: RecordEntry | None = Field(
        None, description="KEEPS INPUTS of callers, encrypted, where hip.yaml has `recordings`. Absent: none are kept."
    )


class OutputEntry(Closed):
    """How exactly an answer may speak."""

    decimals: Annotated[int, Field(ge=0, le=MAX_DECIMALS)] | None = Field(None, description="Digits after the point.")
    top_k: Annotated[int, Field(ge=1, le=MAX_CLASSES)] | None = Field(
        None, description="Only the k best classes keep a score."
    )
    label_only: Literal[True] | None = Field(None, description="The winner's name, no score at all.")

    @model_validator(mode="after")
    def _says_one_thing(self) -> "OutputEntry":
        scores = self.decimals is not None or self.top_k is not None
        if self.label_only and scores:
            raise fault("must not have scores beside `label_only`", "delete `decimals` and `top_k`, or `label_only`")
        if not (self.label_only or scores):
            raise fault("must set `decimals`, `top_k` or `label_only`", "an empty output would hide nothing")
        return self


class Limit(Closed):
    """A parameter that is a count, and how much of it."""

    at_most: Annotated[int, Field(ge=0, le=MAX_COUNT)] = Field(description="The largest value.")
    above: Literal["cap", "refuse"] = Field("cap", description="`refuse`: a larger value is refused, not lowered.")


ParameterTerms = Annotated[
    Annotated[Literal["allow", "refuse"], Tag("<text>")] | Annotated[Limit, Tag("<group>")],
    by_kind("`allow`, `refuse` or a group with `at_most`"),
]


FloorParameter = Annotated[
    Annotated[Literal["refuse"], Tag("<text>")] | Annotated[Limit, Tag("<group>")],
    by_kind("`refuse` or a group with `at_most`"),
]


class DetectorEntry(Closed):
    """A trained judge of inputs, made by `hip detector fit`."""

    file: Text = Field(description="The ONNX file, relative to the policy directory: `detectors/iris.onnx`.")
    sha256: Digest = Field(description="The file's SHA-256 in hexadecimal: another file is refused.")


class ProbeEntry(Closed):
    """Inputs whose answers are known: the proxy asks them now and then, outside of budgets and detectors."""

    model: Name = Field(description="The model that is asked.")
    file: Text = Field(description="The baseline of `hip probe record`, relative to the policy directory.")
    sha256: Digest = Field(description="The file's SHA-256 in hexadecimal: another file is refused.")
    every: Seconds = Field(300.0, description="How often it is asked, at least 1s; also after each change of policy.")
    flips: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="The share of labels that may change.")
    shift: Annotated[float, Field(ge=0, le=1)] = Field(1e-5, description="How far a score may move.")
    slower: Annotated[float, Field(gt=1)] | None = Field(
        None, description="How many times slower than the baseline is a change; absent: time does not count."
    )
    on_change: Literal["alarm", "quarantine"] = Field(
        "alarm", description="`quarantine`: the model is closed (503) until it answers as its baseline says."
    )


class Floor(Closed):
    """What no rule may go below."""

    mfa: Literal["required"] | None = Field(None, description="`required`: no rule may say `mfa: not_required`.")
    output: OutputEntry | None = Field(None, description="Every output is at least as coarse as this one.")
    parameters: dict[Name, FloorParameter] = Field(
        {}, description="No caller may ask for more than this: `{max_tokens: {at_most: 1024}, echo: refuse}`."
    )

    @model_validator(mode="after")
    def _says_something(self) -> "Floor":
        if not (self.mfa or self.output or self.parameters):
            raise fault("must set `mfa`, `output` or `parameters`", "or delete `floor`")
        return self


class Match(Closed):
    """Which requests a rule is about: all that is named here must hold."""

    roles: AnyOrWords | None = Field(
        None, description="The caller has one of these roles; `any`: whoever has a token, and every workload."
    )
    issuers: Names | None = Field(
        None, description="The token is from one of these issuers; `mtls`: no token, a workload."
    )
    clients: Words | None = Field(None, description="The token was given to one of these clients (`client_id`).")
    actions: Actions | None = Field(
        None, description="What is asked for. Management is never meant unless it is named."
    )
    models: AnyOrNames | None = Field(None, description="The models, or `any` of this policy.")
    model_labels: dict[Name, Text] | None = Field(None, description="The model has all these labels.", min_length=1)
    networks: Words | None = Field(None, description="The connection is from one of these networks: `10.0.0.0/8`.")
    hours: Annotated[tuple[WeekHours, ...], Field(min_length=1)] | None = Field(
        None, description="It is one of these hours: `mon-fri 08:00-18:00 Europe/Berlin`."
    )
    claims: dict[ClaimName, ClaimFacts] | None = Field(
        None, description="The token's claims have these values: `{department: [botany, zoology]}`.", min_length=1
    )


Rungs = Annotated[tuple[Suspicion, ...], Field(min_length=1, max_length=len(Suspicion))]


class LadderEntry(Closed):
    """What is done about a suspicious sequence: the first rung, then one higher each time that the evidence doubles."""

    near_duplicates: Rungs = Field(
        (Suspicion.REFUSE,), description="The caller asks along a line or around a point: `[label, delay, refuse]`."
    )
    out_of_distribution: Rungs = Field((Suspicion.REFUSE,), description="Many of its inputs are suspicious.")
    colluding: Rungs = Field(
        (Suspicion.LABEL,), description="Its inputs lie near those of other callers; may not be `refuse`."
    )
    decay: Seconds = Field(86_400.0, description="How long an input counts.")


class DetectorChoice(Closed):
    """What a rule does with a detector."""

    use: Name = Field(description="The detector.")
    mode: Mode = Field(Mode.ENFORCE, description="`shadow`: judge and record, but let pass.")
    on_suspicion: Suspicion = Field(
        Suspicion.REFUSE,
        description="About one input. `label`: answer with the label only, so that the caller cannot tell.",
    )
    sequences: Mode = Field(Mode.OFF, description="Whether what a caller's inputs show together is judged, too.")
    ladder: LadderEntry | None = Field(None, description="What is done about suspicious sequences.")
    traffic: Literal["time_series"] | None = Field(
        None, description="`time_series`: inputs come in small steps, so near ones mean nothing. Tighten the budget."
    )


class RuleEntry(Closed):
    """Who may ask what, and under which conditions. A matching `deny` wins; then the first `allow`; else no."""

    id: Name = Field(description="Its name in the audit trail; unique in the directory.")
    allow: Match | None = Field(None, description="The requests that it allows.")
    deny: Match | None = Field(None, description="The requests that it denies, whatever other rules allow.")
    mfa: Annotated[
        Annotated[Literal["required", "not_required"], Tag("<text>")] | Annotated[MfaTerms, Tag("<group>")],
        by_kind("`required`, `not_required` or a group of terms"),
    ] = Field("required", description="Terms of its own replace the issuer's; `not_required` is shown in the audit.")
    budget: Name | None = Field(None, description="How much each caller may ask.")
    output: Name | None = Field(None, description="How exactly the answer may speak.")
    parameters: Name | None = Field(None, description="What callers may ask for beside the input.")
    detector: DetectorChoice | None = Field(None, description="Who judges the inputs.")
    shadow: Literal[True] | None = Field(None, description="Do not act, only record what the rule would have done.")


class PolicyFile(Closed):
    """A file of a policy directory. All files are one policy: a name in one file is known in all."""

    version: Literal["v1"] = Field(description="The version of the language.")
    issuers: dict[Name, IssuerEntry] = Field({}, description="Whose tokens count.")
    workloads: dict[Name, WorkloadEntry] = Field({}, description="Programs that count by their client certificate.")
    upstreams: dict[Name, UpstreamEntry] = Field({}, description="The model servers.")
    models: dict[Name, ModelEntry] = Field({}, description="Every model that may be asked for.")
    budgets: dict[Name, Annotated[tuple[Rate, ...], Field(min_length=1)]] = Field(
        {}, description="How much a caller may ask: `[60 requests/minute, 1000 rows/day]`."
    )
    outputs: dict[Name, OutputEntry] = Field({}, description="How exactly answers may speak.")
    parameters: dict[Name, Annotated[dict[Name, ParameterTerms], Field(min_length=1)]] = Field(
        {}, description="What callers may ask for beside the input: `{max_tokens: {at_most: 512}, echo: allow}`."
    )
    detectors: dict[Name, DetectorEntry] = Field({}, description="Who judges inputs.")
    probes: dict[Name, ProbeEntry] = Field({}, description="Golden inputs, to see when a model changes.")
    floor: Floor | None = Field(None, description="What no rule may go below; once in the directory.")
    shadow: Literal[True] | None = Field(None, description="Every rule of this file is in shadow.")
    rules: Annotated[tuple[RuleEntry, ...], Field(max_length=MAX_RULES)] = Field((), description="Who may ask what.")
