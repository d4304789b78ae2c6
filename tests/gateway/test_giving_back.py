"""A charge for which nothing was sent is undone, and the auditor sees it; one that was or may have been stays."""

import asyncio

import pytest
from simulators import House, SimulatedAuthenticator, SimulatedLedger, SimulatedUpstream, call, principal

from proxy.errors import DependencyFault, Overloaded, RequestError, UpstreamFault, UpstreamTimeout
from proxy.exchange import Charge, Cost
from proxy.reasons import Reason

NOTHING = Cost(requests=0)


def unsent(error: RequestError) -> RequestError:
    error.unsent = True
    return error


FAULTS = [
    ("its circuit is open", Overloaded(Reason.UPSTREAM_OPEN), True),
    ("no connection", unsent(UpstreamFault(Reason.UPSTREAM_UNREACHABLE)), True),
    ("no connection free in time", unsent(UpstreamTimeout()), True),
    ("lost in the middle", UpstreamFault(Reason.UPSTREAM_UNREACHABLE), False),
    ("no answer in time", UpstreamTimeout(), False),
    ("the upstream is busy", Overloaded(Reason.UPSTREAM_OVERLOADED), False),
    ("a bug of ours", ZeroDivisionError(), False),
]


@pytest.mark.parametrize(("fault", "back"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
async def test_what_was_not_sent_costs_nothing(fault: Exception, back: bool, streams: bool) -> None:
    home = House(upstream=SimulatedUpstream(fault))
    if streams:
        home.authenticator = SimulatedAuthenticator(principal("streamer"))
        home.__post_init__()
    answer = await home.ask(path="/v2/models/iris/generate_stream" if streams else "/v2/models/iris/infer")
    assert answer.status >= 500
    assert len(home.ledger.charges) == 1
    assert home.ledger.settled == ([NOTHING] if back else [])
    assert [getattr(record, "given_back", None) for record in home.trail.records] == [None, back]


class Away(SimulatedLedger):
    async def settle(self, charge: Charge, actual: Cost) -> None:
        raise DependencyFault(Reason.LEDGER_UNAVAILABLE)


async def test_a_ledger_that_is_away_keeps_the_charge_and_the_record_says_so() -> None:
    home = House(upstream=SimulatedUpstream(Overloaded(Reason.UPSTREAM_OPEN)), ledger=Away())
    assert (await home.ask()).status == 503
    assert home.trail.records[1].given_back is False  # type: ignore[attr-defined]


class Slow(SimulatedLedger):
    async def settle(self, charge: Charge, actual: Cost) -> None:
        await asyncio.sleep(60)


async def test_who_leaves_while_it_is_given_back_leaves_a_record() -> None:
    home = House(upstream=SimulatedUpstream(Overloaded(Reason.UPSTREAM_OPEN)), ledger=Slow())
    asking = asyncio.create_task(home.gateway.handle(call()))
    while len(home.trail.records) < 1:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert home.reasons == [Reason.ALLOWED, Reason.SHUTTING_DOWN]
