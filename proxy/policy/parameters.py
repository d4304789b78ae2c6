"""Lays the request parameters that a rule speaks of over what each dialect holds safe, and the floor over both.

The result is complete: a parameter that is not in it is refused. A dialect's word for a parameter is the policy's. The
floor is about what is forwarded: it never allows, and what is above it is lowered or refused as it says.
"""

from collections.abc import Mapping
from types import MappingProxyType

from proxy.dialects import Dialect
from proxy.exchange import KnownParameter, Parameter, Parameters, Upstream
from proxy.policy import wording
from proxy.policy.schema import Limit, ParameterTerms

Terms = Mapping[str, ParameterTerms]
NO_TERMS: Terms = MappingProxyType({})


def known_parameters(
    dialects: Mapping[str, Dialect], upstreams: Mapping[str, Upstream]
) -> Mapping[str, KnownParameter]:
    """Return what the dialects of a policy know."""
    used = {one.dialect for one in upstreams.values()} & dialects.keys()
    return {word: known for name in sorted(used) for word, known in dialects[name].parameters.items()}


def effective(
    terms: Terms, dialects: Mapping[str, Dialect], floor: Terms = NO_TERMS
) -> tuple[Mapping[str, Parameters], frozenset[str]]:
    """Return, by dialect, what may be asked for under a rule's terms, and the words that the floor made stricter."""
    found, lowered = dict[str, Parameters](), set[str]()
    for name, dialect in dialects.items():
        asked = _over(terms, dialect.parameters)
        held = {word: one for word, one in ((word, _held(asked[word], floor.get(word))) for word in asked) if one}
        lowered |= {word for word in asked if held.get(word) != asked[word]}
        found[name] = MappingProxyType(held)
    return MappingProxyType(found), frozenset(lowered)


def told(allowed: Mapping[str, Parameters], dialects: Mapping[str, Dialect]) -> Mapping[str, tuple[str, ...]]:
    """Return, by dialect, what may be asked for in words; nothing where it is what the dialect holds safe."""
    plain, _ = effective({}, dialects)
    return MappingProxyType(
        {name: () if one == plain[name] else wording.parameter_words(one) for name, one in allowed.items()}
    )


def _over(terms: Terms, known: Mapping[str, KnownParameter]) -> Parameters:
    found = ((word, _said(terms[word]) if word in terms else one.default) for word, one in known.items())
    return {word: parameter for word, parameter in found if parameter is not None}


def _held(parameter: Parameter, floor: ParameterTerms | None) -> Parameter | None:
    """Hold a parameter to the floor. A rule that caps below it stays as it is: no more than that is forwarded."""
    if not isinstance(floor, Limit):
        return None if floor == "refuse" else parameter
    if parameter.most is not None and parameter.most <= floor.at_most:
        return parameter
    return Parameter(floor.at_most, cap=floor.above == "cap" and parameter.cap)


def _said(terms: ParameterTerms) -> Parameter | None:
    if isinstance(terms, Limit):
        return Parameter(terms.at_most, cap=terms.above == "cap")
    return Parameter() if terms == "allow" else None
