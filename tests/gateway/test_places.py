"""A principal's places: taken once its token is believed, and free again whatever becomes of the request."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators import House, SimulatedAuthenticator, SimulatedTrail, SimulatedUpstream, call, infer_reply, principal

from proxy.adapters.places import PrincipalPlaces
from proxy.errors import TokenMissing, UpstreamTimeout
from proxy.gateway import Gateway
from proxy.reasons import Reason

STREAM = "/v2/models/iris/generate_stream"


def limited(home: House, limit: int = 1) -> PrincipalPlaces:
    """Give a house places; its events all differ then, as those of a real one do."""
    places, numbers = PrincipalPlaces(limit), iter(range(1_000_000))
    world = replace(home.gateway._world, places=places, new_id=lambda: f"{next(numbers):032x}")
    home.gateway = Gateway(world)
    return places


ENDS: list[tuple[str, dict[str, Any], str]] = [
    ("an answer", {}, "/v2/models/iris/infer"),
    ("no token", {"authenticator": SimulatedAuthenticator(TokenMissing())}, "/v2/models/iris/infer"),
    ("no rule", {"authenticator": SimulatedAuthenticator(principal("guest"))}, "/v2/models/iris/infer"),
    ("a fault", {"upstream": SimulatedUpstream(UpstreamTimeout())}, "/v2/models/iris/infer"),
    ("a bug of ours", {"upstream": SimulatedUpstream(ZeroDivisionError())}, "/v2/models/iris/infer"),
    ("no journal", {"trail": SimulatedTrail(0)}, "/v2/models/iris/infer"),
    ("no journal any more", {"trail": SimulatedTrail(1)}, "/v2/models/iris/infer"),
]


@pytest.mark.parametrize(("changes", "path"), [end[1:] for end in ENDS], ids=[end[0] for end in ENDS])
async def test_every_end_frees_the_place(changes: dict[str, Any], path: str) -> None:
    home = House(**changes)
    places = limited(home)
    for _ in range(2):
        await home.ask(path=path)
        assert len(places) == 0


async def test_one_more_is_refused_on_record_and_before_anything_costs() -> None:
    home = House()
    places = limited(home)
    assert places.take("another", principal("analyst").account)
    answer = await home.ask()
    assert answer.status == 503
    assert home.reasons == [Reason.OVERLOADED]
    assert home.ledger.charges == []
    assert home.trail.records[0].actor is not None  # type: ignore[attr-defined]
    places.leave("another")
    assert (await home.ask()).status == 200


async def test_a_cancelled_request_frees_it() -> None:
    home = House()
    places = limited(home)
    home.upstream.reply = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await home.ask()
    assert len(places) == 0


async def test_a_stream_has_it_until_its_end() -> None:
    home = House(authenticator=SimulatedAuthenticator(principal("streamer")))
    home.upstream.reply = infer_reply(200, b"", ((b"content-type", b"text/event-stream"),))
    places = limited(home)
    answer = await home.gateway.handle(call(path=STREAM))
    assert not isinstance(answer.body, bytes), answer
    assert len(places) == 1
    await answer.body.aclose()
    assert len(places) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from("ab")), max_size=50))
def test_nobody_has_more_than_the_limit_and_nothing_is_left(steps: list[tuple[bool, int, str]]) -> None:
    places, held = PrincipalPlaces(3), dict[str, str]()
    for takes, number, account in steps:
        event = str(number)
        if takes and event not in held:
            assert places.take(event, account) is (list(held.values()).count(account) < 3)
            if list(held.values()).count(account) < 3:
                held[event] = account
        elif not takes:
            places.leave(event)
            held.pop(event, None)
    for event in list(held):
        places.leave(event)
    assert len(places) == 0
    assert not places._accounts
