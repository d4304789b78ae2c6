"""A table of actions: what it finds, and what it says of a path that it knows with another method."""

import pytest

from proxy.dialects import DIALECTS
from proxy.dialects.table import Line, Table
from proxy.errors import Malformed, MethodNotAllowed
from proxy.exchange import Action
from proxy.problem import public_answer

TABLE = Table(
    (
        Line("POST", r"/a/(?P<model>[a-z]+)", Action.INFER),
        Line("PUT", r"/a/(?P<model>[a-z]+)", Action.INFER),
        Line("GET", r"/a/live|/live", Action.HEALTH),
    )
)


@pytest.mark.parametrize(
    ("path", "allowed"), [("/a/x", ("POST", "PUT")), ("/live", ("GET",)), ("/a/live", ("GET", "POST", "PUT"))]
)
def test_all_methods_of_a_path_are_named(path, allowed):
    with pytest.raises(MethodNotAllowed) as refused:
        TABLE.find("DELETE", path, "")
    assert refused.value.allowed == allowed
    headers = dict(public_answer(refused.value, "0" * 32).headers)
    assert headers[b"allow"] == ", ".join(allowed).encode()


def test_what_is_found_is_not_refused():
    assert TABLE.find("PUT", "/a/x", "").model == "x"
    assert TABLE.find("GET", "/a/live", "").action is Action.HEALTH
    assert TABLE.find("GET", "/b", "") is None
    with pytest.raises(Malformed):
        TABLE.find("GET", "/live", "a=1")


@pytest.mark.parametrize(
    ("dialect", "path", "allowed"),
    [
        ("oip-v2", "/v2/models/digits/infer", ("POST",)),
        ("kserve-v1", "/v1/models/digits:predict", ("POST",)),
        ("torchserve", "/predictions/digits", ("POST", "PUT")),
        ("mlflow", "/ping", ("GET",)),
        ("openai", "/v1/chat/completions", ("POST",)),
    ],
)
def test_every_dialect_names_them(dialect, path, allowed):
    with pytest.raises(MethodNotAllowed) as refused:
        DIALECTS[dialect].classify("DELETE", path, "")
    assert refused.value.allowed == allowed


def test_an_answer_that_is_no_405_has_no_such_header():
    assert b"allow" not in dict(public_answer(Malformed(), "0" * 32).headers)
    assert b"allow" not in dict(public_answer(MethodNotAllowed(), "0" * 32).headers)
