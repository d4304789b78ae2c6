"""The paths of the Open Inference Protocol and of the servers that speak it: which is which action on which model."""

import re

from proxy.errors import Malformed, MethodNotAllowed, UnknownRoute
from proxy.exchange import Action, Target
from proxy.reasons import Reason

GENERATE = "generate"  # the form of a target whose body is flat: name -> value

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_MODEL = rf"/v2/models/(?P<model>{_SEGMENT})(?:/versions/(?P<version>{_SEGMENT}))?"

# method, path, action, form: the whole surface of the protocol and of the servers that speak it.
ACTIONS: tuple[tuple[str, str, Action, str], ...] = (
    ("POST", rf"{_MODEL}/infer", Action.INFER, ""),
    ("POST", rf"{_MODEL}/infer_stream", Action.STREAM, ""),
    ("POST", rf"{_MODEL}/generate", Action.INFER, GENERATE),
    ("POST", rf"{_MODEL}/generate_stream", Action.STREAM, GENERATE),
    ("GET", rf"{_MODEL}/ready", Action.HEALTH, ""),
    ("GET", _MODEL, Action.METADATA, ""),
    ("GET", r"/v2/health/(?:live|ready)", Action.HEALTH, ""),
    ("GET", r"/v2", Action.METADATA, ""),
    ("GET", rf"{_MODEL}/config", Action.CONFIG, ""),
    ("GET", rf"{_MODEL}/stats", Action.STATISTICS, ""),
    ("GET", r"/v2/models/stats", Action.STATISTICS, ""),
    ("POST", r"/v2/repository/index", Action.REPOSITORY, ""),
    ("POST", rf"/v2/repository/models/(?P<model>{_SEGMENT})/(?:load|unload)", Action.REPOSITORY, ""),
    ("GET", r"/v2/(?:docs(?:/.*)?|models/(?P<model>" + _SEGMENT + r")/docs(?:/.*)?)", Action.DOCS, ""),
)
_TABLE = tuple((method, re.compile(path), action, form) for method, path, action, form in ACTIONS)


def classify(method: str, path: str, query: str) -> Target | None:
    """Look the path up in `ACTIONS`; None: not a path of this protocol."""
    if path != "/v2" and not path.startswith("/v2/"):
        return None
    known = False
    for verb, pattern, action, form in _TABLE:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        if verb != method:
            known = True
            continue
        if query:
            raise Malformed(Reason.MALFORMED_MESSAGE, "oip-v2 has no query parameters")
        names = match.groupdict()
        return Target(action, names.get("model"), names.get("version"), form)
    if known:
        raise MethodNotAllowed
    raise UnknownRoute
