"""Replicas by hand: what checks make of one, who is chosen, and TLS files that change under all of them."""

import shutil
import ssl
from pathlib import Path

import pytest

from proxy.adapters.breaker import FAILURES, OPEN_SECONDS, Breaker
from proxy.adapters.health import ask
from proxy.adapters.mint import Minted, mint
from proxy.adapters.replicas import Replica, Replicas
from proxy.adapters.upstream import HttpUpstreamClient
from proxy.errors import Overloaded, RequestError, UpstreamFault, UpstreamTimeout
from proxy.exchange import HealthCheck, Outbound, Reply, Upstream
from proxy.reasons import Reason
from tests.upstream.raw_upstream import INFER, Step, ok, raw_upstream, upstream

CHECK = HealthCheck("/v2/health/ready", 3600.0, 5.0, down_after=3, up_after=2)


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def replica() -> Replica:
    return Replica(upstream(1, health=CHECK), Breaker(Time()))


@pytest.mark.parametrize(
    ("checks", "passed_over"),
    [
        ("", False),  # not asked yet
        ("+", False),
        ("-", True),  # the first check decides alone
        ("-+", True),
        ("-++", False),
        ("-+-+", True),
        ("+--", False),
        ("+--+--", False),
        ("+---", True),
        ("+---+", True),
        ("+---++--", False),
    ],
)
def test_so_many_checks_in_a_row_turn_it(checks: str, passed_over: bool) -> None:
    one = replica()
    for check in checks:
        one.note("" if check == "+" else "answered 503", CHECK)
    assert bool(one.passed_over) is passed_over


def test_who_is_well_again_is_not_held_back_by_its_circuit() -> None:
    one = replica()
    for _ in range(FAILURES):
        one.breaker.failed()
    assert one.passed_over == "its circuit is open"
    one.note("no connection", CHECK)
    assert one.passed_over == "no connection"
    one.note("", CHECK)
    assert one.passed_over == "no connection"
    one.note("", CHECK)
    assert not one.passed_over


def test_an_open_circuit_lets_one_try_after_a_while() -> None:
    time = Time()
    one = Replica(upstream(1, health=CHECK), Breaker(time))
    for _ in range(FAILURES):
        one.breaker.failed()
    time.now += OPEN_SECONDS - 0.1
    assert one.passed_over
    time.now += 0.1
    assert not one.passed_over
    one.breaker.enter()
    assert one.passed_over, "one at a time"


class Simulated:
    """A client that remembers who was asked; of some, by their ports, the faults."""

    def __init__(self, **faults: RequestError) -> None:
        self.asked: list[int] = []
        self.faults = faults

    async def send(self, upstream: Upstream, request: Outbound) -> Reply:
        self.asked.append(upstream.port)
        if (fault := self.faults.get(f"at_{upstream.port}")) is not None:
            raise fault
        return Reply(200, (), b"")

    def stream(self, upstream: Upstream, request: Outbound):
        raise NotImplementedError


async def test_equals_take_turns_also_beside_one_that_is_passed_over() -> None:
    client = Simulated()
    replicas = Replicas(client, lambda _: Breaker(Time()))
    to = upstream(1, replicas=tuple(upstream(port, health=CHECK) for port in (1, 2, 3)))
    replicas.install([to])
    for _ in range(6):
        await replicas.send(to, INFER)
    assert client.asked == [1, 2, 3, 1, 2, 3]
    for one in replicas.members():
        if one.upstream.port == 2:
            one.note("answered 503", CHECK)
    client.asked.clear()
    for _ in range(4):
        await replicas.send(to, INFER)
    assert client.asked == [1, 3, 1, 3]
    for one in replicas.members():
        one.note("answered 503", CHECK)
    with pytest.raises(Overloaded) as caught:
        await replicas.send(to, INFER)
    assert caught.value.reason is Reason.UPSTREAM_OPEN
    assert caught.value.detail.count("answered 503") == 3


def unsent(fault: RequestError) -> RequestError:
    fault.unsent = True
    return fault


@pytest.mark.parametrize(
    ("fault", "asked"),
    [
        (unsent(UpstreamFault(Reason.UPSTREAM_UNREACHABLE)), [1, 2]),
        (unsent(UpstreamFault(Reason.UPSTREAM_OVERLOADED)), [1, 2]),
        (UpstreamFault(Reason.UPSTREAM_UNREACHABLE), [1]),
        (unsent(UpstreamTimeout()), [1]),
    ],
    ids=["no connection", "no place in its pool", "written", "its time is over"],
)
async def test_what_was_not_sent_in_time_goes_to_the_next(fault: RequestError, asked: list[int]) -> None:
    client = Simulated(at_1=fault)
    replicas = Replicas(client, lambda _: Breaker(Time()))
    to = upstream(1, replicas=tuple(upstream(port, health=CHECK) for port in (1, 2)))
    replicas.install([to])
    if len(asked) == 2:
        assert (await replicas.send(to, INFER)).replica == "127.0.0.1:2"
    else:
        with pytest.raises(type(fault)):
            await replicas.send(to, INFER)
    assert client.asked == asked
    assert [one.pending for one in replicas.members()] == [0, 0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([ok(b"{}")], ""),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], ""),
        ([b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"], "answered 503"),
        ([b"HTTP/1.1 301 There\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"], "answered 301"),
        ([ok(b"x" * (1 << 17))], "GET /v2/health/ready: "),
        ([b"220 smtp\r\n"], "GET /v2/health/ready: "),
        ([Step.RESET], "GET /v2/health/ready: "),
        ([Step.HANG], "no answer in 0.5 s"),
    ],
    ids=["200", "204", "503", "301", "too large", "no HTTP", "reset", "hung"],
)
async def test_what_is_well(answer: list[bytes | Step], said: str) -> None:
    """Only 2xx: a redirect leads nobody anywhere, and what is too large or no HTTP is no answer."""
    check = HealthCheck("/v2/health/ready", 1.0, 0.5, 1, 1)
    async with raw_upstream([answer]) as server:
        client = HttpUpstreamClient()
        to = upstream(server.port, replicas=(upstream(server.port, health=check),))
        client.retain([to])
        (one,) = client.replicas()
        destination = client._destination(one)
        assert destination is not None
        fault = await ask(destination, "/v2/health/ready", check)
        assert said in fault
        assert bool(said) is bool(fault)
        await client.close()


def serving(minted: Minted) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(minted.server.certificate, minted.server.key)
    return context


async def test_a_new_ca_is_trusted_by_every_replica(tmp_path: Path) -> None:
    """One set of files, several connections: requests and checks both use the new one."""
    old, new = (mint(tmp_path / name, ["localhost"], []) for name in ("old", "new"))
    ca = tmp_path / "ca.pem"
    shutil.copy(old.ca.certificate, ca)
    client = HttpUpstreamClient()
    async with raw_upstream(tls=serving(new)) as one, raw_upstream(tls=serving(new)) as other:
        safe = {"scheme": "https", "host": "localhost", "ca_file": str(ca)}
        members = tuple(upstream(server.port, health=CHECK, **safe) for server in (one, other))
        to = upstream(one.port, replicas=members, **safe)
        client.retain([to])
        assert client.files() == {to: (ca,)}, "once, as the policy names it"
        with pytest.raises(UpstreamFault, match="certificate"):
            await client.send(to, INFER)
        assert not client.renew(to)
        shutil.copy(new.ca.certificate, ca)
        assert client.renew(to)
        assert [(await client.send(to, INFER)).status for _ in range(2)] == [200, 200]
        assert len(one.requests) == len(other.requests) == 1
        for found in client.replicas():
            destination = client._destination(found)
            assert destination is not None
            assert await ask(destination, "/v2/health/ready", CHECK) == ""
        assert client.down() == {"u": False}
        await client.close()
