"""Lays the request parameters that a rule speaks of over what each dialect holds safe.

The result is complete: a parameter that is not in it is refused. A dialect's word for a parameter is the policy's.
"""

from collections.abc import Mapping
from types import MappingProxyType

from proxy.dialects import Dialect
from proxy.exchange import KnownParameter, Parameter, Parameters, Upstream
from proxy.policy.schema import Limit, ParameterTerms

Terms = Mapping[str, ParameterTerms]


def known_parameters(
    dialects: Mapping[str, Dialect], upstreams: Mapping[str, Upstream]
) -> Mapping[str, KnownParameter]:
    """Return what the dialects of a policy know."""
    used = {one.dialect for one in upstreams.values()} & dialects.keys()
    return {word: known for name in sorted(used) for word, known in dialects[name].parameters.items()}


def effective(terms: Terms, dialects: Mapping[str, Dialect]) -> Mapping[str, Parameters]:
    """Return, by dialect, what may be asked for under a rule's terms."""
    return MappingProxyType({name: _over(terms, dialect.parameters) for name, dialect in dialects.items()})


def _over(terms: Terms, known: Mapping[str, KnownParameter]) -> Parameters:
    found = ((word, _said(terms[word]) if word in terms else one.default) for word, one in known.items())
    return MappingProxyType({word: parameter for word, parameter in found if parameter is not None})


def _said(terms: ParameterTerms) -> Parameter | None:
    if isinstance(terms, Limit):
        return Parameter(terms.at_most, cap=terms.above == "cap")
    return Parameter() if terms == "allow" else None
