"""Policy tests: what a policy must decide, as data beside it. Pure.

Each expectation is put to the real decision function. A decision that differs is a finding at the word that differs,
and rules that no test touches are named. A test says nothing about tokens or inputs: only who, what and the answer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from proxy.dialects import DIALECTS
from proxy.documents import Closed, Document, Name, Path, fault, parse, suggestion, validate
from proxy.documents.quantities import WholeSeconds
from proxy.errors import ConfigError, Finding
from proxy.exchange import Action, Denial, Grant, Parameter, Principal, Target, Upstream
from proxy.policy.decide import authorize
from proxy.policy.facts import ClaimFacts, ClaimName, Fact, claim_path
from proxy.policy.hours import WeekMoment
from proxy.policy.model import Policy
from proxy.policy.schema import Limit, OutputEntry, ParameterTerms, Text
from proxy.reasons import Reason

NOW = 1_700_000_000  # UNIX seconds: the tests' own clock, a Tuesday
LIFETIME = 300  # seconds that the tests' tokens are valid


def _apart(claims: dict[str, ClaimFacts]) -> dict[str, ClaimFacts]:
    """Refuse a claim that is a value and a group at once."""
    for name in claims:
        inside = [other for other in claims if other.startswith(f"{name}.") and "://" not in name]
        if inside:
            raise fault("must not have `{name}` and `{other}`", "keep one of the two", name=name, other=inside[0])
    return claims


class Who(Closed):
    """The caller."""

    issuer: Name | None = Field(None, description="May be left out where the policy has one issuer.")
    roles: tuple[Text, ...] = Field((), description="The roles in the token.")
    amr: tuple[Text, ...] = Field((), description="The methods of authentication in the token.")
    acr: Text | None = Field(None, description="The authentication context in the token.")
    signed_in: WholeSeconds | None = Field(None, description="How long ago (`auth_time`), like `10m`.")
    client: Text | None = Field(None, description="The client that the token was given to.")
    claims: Annotated[dict[ClaimName, ClaimFacts], AfterValidator(_apart)] = Field(
        {}, description="Other claims in the token; a list is a list."
    )


class Request(Closed):
    """What is asked for: something of a model, or something of a whole server."""

    action: Action = Field(description="The action.")
    model: Name | None = Field(None, description="The model.")
    upstream: Name | None = Field(None, description="The server, where no model is asked for.")
    address: Text = Field("127.0.0.1", description="Where the connection comes from.")
    at: WeekMoment | None = Field(
        None, description="When, like `tue 10:30 Europe/Berlin`; a Tuesday, 22:13 UTC, where it does not matter."
    )


class Expected(Closed):
    """The decision. What is not named is not compared."""

    effect: Literal["allow", "deny"] = Field(description="Yes or no.")
    rule: Name | None = Field(None, description="The rule that decides.")
    reason: Reason | None = Field(
        None, description="Why not: `no_rule`, `denied_by_rule`, `mfa_missing`, `mfa_too_old`."
    )
    budget: Name | None = Field(None, description="The budget.")
    output: OutputEntry | None = Field(None, description="The output, after the floor.")
    parameters: dict[Name, ParameterTerms] | None = Field(
        None, description="What may be asked for beside the input, after the floor; words that are not named may be so."
    )
    detector: Name | None = Field(None, description="The detector.")
    mfa: Literal["required", "not_required"] | None = Field(None, description="Whether MFA was asked for.")
    shadow: tuple[Name, ...] | None = Field(None, description="Rules in shadow that would have decided otherwise.")


class Expectation(Closed):
    """One test."""

    name: Text = Field(description="What must be so, as a sentence.")
    principal: Who = Field(description="Who asks.")
    request: Request = Field(description="What is asked for.")
    expect: Expected = Field(description="What must be decided.")


class TestFile(Closed):
    """A file of policy tests."""

    __test__ = False  # not a class of pytest's

    version: Literal["v1"] = Field(description="The version of the language.")
    tests: Annotated[tuple[Expectation, ...], Field(min_length=1)] = Field(description="The tests.")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the tests of a policy."""

    total: int
    failures: tuple[Finding, ...]
    untouched: tuple[str, ...]  # rules that decided nothing in any test


def run_expectations(policy: Policy, files: Mapping[str, bytes]) -> Outcome:
    """Put every test to the policy. Raise ConfigError for files that are no tests."""
    documents: list[tuple[Document, TestFile]] = []
    faults: list[Finding] = []
    for name in sorted(files):
        try:
            document = parse(name, files[name])
            documents.append((document, validate(document, TestFile)))
        except ConfigError as error:
            faults += error.findings
    if faults:
        raise ConfigError(faults)
    total, touched, failures = 0, set[str](), list[Finding]()
    for document, file in documents:
        for number, test in enumerate(file.tests):
            total += 1
            trial = _Trial(policy, document, ("tests", number), test)
            failures += trial.run()
            touched |= trial.touched
    return Outcome(total, tuple(failures), tuple(rule.id for rule in policy.rules if rule.id not in touched))


class _Trial:
    """One test, put to the policy."""

    def __init__(self, policy: Policy, document: Document, path: Path, test: Expectation) -> None:
        self._policy = policy
        self._document = document
        self._path = path
        self._test = test
        self.touched: set[str] = set()

    def run(self) -> list[Finding]:
        asked = self._asked()
        if isinstance(asked, Finding):
            return [asked]
        principal, target, upstream = asked
        request = self._test.request
        decision = authorize(self._policy, principal, target, upstream, request.address, now=_now(request))
        self.touched = {decision.rule or "", *decision.shadow}
        return list(self._differences(decision))

    def _finding(self, message: str, *at: str) -> Finding:
        return self._document.finding((*self._path, *at), f"{self._test.name}: {message}", value=True)

    def _asked(self) -> tuple[Principal, Target, Upstream] | Finding:
        """Return the question; a name that the policy does not have is a finding, or a test would pass in vain."""
        policy, who, request = self._policy, self._test.principal, self._test.request
        issuers = list(policy.factors)
        if who.issuer is None and len(issuers) > 1:
            return self._finding(f"say which `issuer`: {', '.join(issuers)}", "principal")
        issuer = who.issuer or issuers[0]
        if issuer not in policy.factors:
            return self._finding(f"unknown issuer `{issuer}`{suggestion(issuer, issuers)}", "principal", "issuer")
        if (request.model is None) == (request.upstream is None):
            return self._finding("name either a `model` or an `upstream`", "request")
        if request.model is not None:
            model = policy.models.get(request.model)
            if model is None:
                near = suggestion(request.model, policy.models)
                return self._finding(f"unknown model `{request.model}`{near}", "request", "model")
            upstream = model.upstream
        else:
            name = str(request.upstream)
            if name not in policy.upstreams:
                near = suggestion(name, policy.upstreams)
                return self._finding(f"unknown upstream `{name}`{near}", "request", "upstream")
            upstream = policy.upstreams[name]
        return _principal(issuer, who, _now(request)), Target(request.action, request.model), upstream

    def _differences(self, decision: Grant | Denial) -> Iterator[Finding]:
        expect, got = self._test.expect, _described(decision)
        for field in Expected.model_fields:
            expected = getattr(expect, field)
            if field == "parameters" and expected is not None and isinstance(decision, Grant):
                yield from self._parameters(expected, decision)
            elif expected is not None and expected != got[field]:
                because = f" ({decision.reason})" if isinstance(decision, Denial) and field == "effect" else ""
                yield self._finding(
                    f"`{field}` is {_shown(got[field])}{because}, not {_shown(expected)}", "expect", field
                )

    def _parameters(self, expected: Mapping[str, ParameterTerms], grant: Grant) -> Iterator[Finding]:
        """Compare word by word; a word that no dialect of the request has would be compared in vain."""
        known = DIALECTS[grant.upstream.dialect].parameters
        for word, terms in expected.items():
            if word not in known:
                near = suggestion(word, known)
                yield self._finding(
                    f"`{grant.upstream.dialect}` has no parameter `{word}`{near}", "expect", "parameters", word
                )
                continue
            got = _as_terms(grant.parameters.get(word))
            if got != terms:
                message = f"`{word}` is {_shown_terms(got)}, not {_shown_terms(terms)}"
                yield self._finding(message, "expect", "parameters", word)


def _as_terms(parameter: Parameter | None) -> ParameterTerms:
    """Return what a policy would write for it."""
    if parameter is None:
        return "refuse"
    if parameter.most is None:
        return "allow"
    return Limit.model_construct(at_most=parameter.most, above="cap" if parameter.cap else "refuse")


def _shown_terms(terms: ParameterTerms) -> str:
    if isinstance(terms, Limit):
        return f"`at_most: {terms.at_most}`" + (" and refused above" if terms.above == "refuse" else "")
    return f"`{terms}`"


def _now(request: Request) -> int:
    return NOW if request.at is None else request.at.after(NOW)


def _principal(issuer: str, who: Who, now: int) -> Principal:
    return Principal(
        issuer=issuer,
        subject="test",
        roles=frozenset(who.roles),
        factors=frozenset(who.amr),
        acr=who.acr,
        auth_time=None if who.signed_in is None else now - who.signed_in,
        issued_at=now,
        expires_at=now + LIFETIME,
        token_id="test",  # noqa: S106 - an identifier, not a secret
        token_digest=b"",
        key_id="test",
        client=who.client,
        claims=_claims(who.claims),
    )


def _claims(given: Mapping[str, Fact | tuple[Fact, ...]]) -> Mapping[str, object]:
    """Return claims as a token has them: groups inside each other, lists as lists."""
    claims: dict[str, Any] = {}
    for name, value in given.items():
        *outer, last = claim_path(name)
        inner = claims
        for step in outer:
            inner = inner.setdefault(step, {})
        inner[last] = list(value) if isinstance(value, tuple) else value
    return claims


def _described(decision: Grant | Denial) -> Mapping[str, object]:
    """Return a decision in the words of `Expected`."""
    if isinstance(decision, Denial):
        nothing = dict.fromkeys(Expected.model_fields)
        return {
            **nothing,
            "effect": "deny",
            "rule": decision.rule,
            "reason": decision.reason,
            "shadow": decision.shadow,
        }
    output = decision.output
    return {
        "effect": "allow",
        "rule": decision.rule,
        "reason": Reason.ALLOWED,
        "budget": decision.budget.name,
        "output": OutputEntry.model_construct(
            decimals=output.decimals, top_k=output.top_k, label_only=output.label_only or None
        ),
        "parameters": None,  # compared word by word
        "detector": decision.detector.name if decision.detector else None,
        "mfa": "required" if decision.mfa else "not_required",
        "shadow": decision.shadow,
    }


def _shown(value: object) -> str:
    if value is None or value == ():
        return "nothing"
    if isinstance(value, dict):
        return ", ".join(f"{word}: {_shown_terms(terms)}" for word, terms in value.items())
    if isinstance(value, OutputEntry):
        return ", ".join(f"{key}: {setting}" for key, setting in value.model_dump(exclude_none=True).items())
    return ", ".join(f"`{item}`" for item in value) if isinstance(value, tuple) else f"`{value}`"
