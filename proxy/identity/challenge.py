"""The `WWW-Authenticate` field: RFC 6750 section 3, RFC 9470 section 3 for a step-up, RFC 9449 section 7.1 for DPoP.

It says what the public answer says and nothing more. A realm or context that does not fit a quoted-string is made
to fit, because an error answer must not fail.
"""

from collections.abc import Iterable, Sequence

from proxy.errors import Forbidden, RequestError, StepUpRequired, TokenMissing, public_face
from proxy.exchange import Scheme
from proxy.identity.token import ALGORITHMS

REALM = "inference"

Parameter = tuple[str, str]


def www_authenticate(
    error: RequestError, realm: str = REALM, schemes: Sequence[Scheme] = (Scheme.BEARER,)
) -> bytes | None:
    """Return the field's value for an error about credentials, None for every other.

    The error belongs to the first scheme, the one that the caller used; the others are offers.
    """
    face = public_face(error)
    if face.bearer_error is None and not isinstance(error, TokenMissing):
        return None
    told: list[Parameter] = []
    if face.bearer_error is not None:  # RFC 6750 section 3.1: no error code where there were no credentials
        told += [("error", face.bearer_error), ("error_description", face.title)]
    if isinstance(error, Forbidden) and error.scope is not None:
        told.append(("scope", error.scope))
    if isinstance(error, StepUpRequired):
        if error.challenge.acr_values:
            told.append(("acr_values", " ".join(error.challenge.acr_values)))
        if error.challenge.max_age is not None:
            told.append(("max_age", str(error.challenge.max_age)))
    first, *others = schemes
    challenges = [_challenge(first, realm, told), *(_challenge(other, realm, ()) for other in others)]
    return ", ".join(challenges).encode("ascii")


def _challenge(scheme: Scheme, realm: str, told: Iterable[Parameter]) -> str:
    algorithms = [("algs", " ".join(sorted(ALGORITHMS)))] if scheme is Scheme.DPOP else []
    parameters = [("realm", realm), *told, *algorithms]
    return f"{scheme} " + ", ".join(f"{name}={_quoted(value)}" for name, value in parameters)


def _quoted(value: str) -> str:
    # RFC 9110 section 5.6.4; what is no visible ASCII (a CR above all) never reaches a header.
    text = "".join(char if " " <= char <= "~" else "?" for char in value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
