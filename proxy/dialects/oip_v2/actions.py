"""The paths of the Open Inference Protocol and of the servers that speak it: which is which action on which model."""

from proxy.dialects.table import SEGMENT, Line, Table
from proxy.errors import UnknownRoute
from proxy.exchange import Action, Target

GENERATE = "generate"  # the form of a target whose body is flat: name -> value

_MODEL = rf"/v2/models/(?P<model>{SEGMENT})(?:/versions/(?P<version>{SEGMENT}))?"

# The whole surface of the protocol and of the servers that speak it.
ACTIONS = (
    Line("POST", rf"{_MODEL}/infer", Action.INFER),
    Line("POST", rf"{_MODEL}/infer_stream", Action.STREAM),
    Line("POST", rf"{_MODEL}/generate", Action.INFER, GENERATE),
    Line("POST", rf"{_MODEL}/generate_stream", Action.STREAM, GENERATE),
    Line("GET", rf"{_MODEL}/ready", Action.HEALTH),
    Line("GET", r"/v2/models/stats", Action.STATISTICS),  # before the next line: it is no model's name
    Line("GET", _MODEL, Action.METADATA),
    Line("GET", r"/v2/health/(?:live|ready)", Action.HEALTH),
    Line("GET", r"/v2", Action.METADATA),
    Line("GET", rf"{_MODEL}/config", Action.CONFIG),
    Line("GET", rf"{_MODEL}/stats", Action.STATISTICS),
    Line("POST", r"/v2/repository/index", Action.REPOSITORY),
    Line("POST", rf"/v2/repository/models/(?P<model>{SEGMENT})/(?:load|unload)", Action.REPOSITORY),
    Line("GET", rf"/v2/(?:docs(?:/.*)?|models/(?P<model>{SEGMENT})/docs(?:/.*)?)", Action.DOCS),
)
_TABLE = Table(ACTIONS)


def classify(method: str, path: str, query: str) -> Target | None:
    """Look the path up in `ACTIONS`; None: not a path of this protocol. Below `/v2`, what is not named is closed."""
    if path != "/v2" and not path.startswith("/v2/"):
        return None
    target = _TABLE.find(method, path, query)
    if target is None:
        raise UnknownRoute
    return target
