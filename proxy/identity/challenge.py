"""The `WWW-Authenticate` field: RFC 6750 section 3, and RFC 9470 section 3 for a step-up.

It says what the public answer says and nothing more. A realm or context that does not fit a quoted-string is made
to fit, because an error answer must not fail.
"""

from proxy.errors import RequestError, StepUpRequired, TokenMissing, public_face

REALM = "inference"


def www_authenticate(error: RequestError, realm: str = REALM) -> bytes | None:
    """Return the field's value for an error about credentials, None for every other."""
    face = public_face(error)
    if face.bearer_error is None and not isinstance(error, TokenMissing):
        return None
    parameters = [("realm", realm)]
    if face.bearer_error is not None:  # RFC 6750 section 3.1: no error code where there were no credentials
        parameters += [("error", face.bearer_error), ("error_description", face.title)]
    if isinstance(error, StepUpRequired):
        if error.challenge.acr_values:
            parameters.append(("acr_values", " ".join(error.challenge.acr_values)))
        if error.challenge.max_age is not None:
            parameters.append(("max_age", str(error.challenge.max_age)))
    return ("Bearer " + ", ".join(f"{name}={_quoted(value)}" for name, value in parameters)).encode("ascii")


def _quoted(value: str) -> str:
    # RFC 9110 section 5.6.4; what is no visible ASCII (a CR above all) never reaches a header.
    text = "".join(char if " " <= char <= "~" else "?" for char in value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
