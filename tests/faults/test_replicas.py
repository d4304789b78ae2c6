"""Several replicas of one upstream behind a running proxy: who is asked, who is passed over, and what nobody loses."""

import asyncio
import json
import signal
import socket
from collections import Counter
from pathlib import Path

import pytest

from proxy.adapters.breaker import FAILURES
from proxy.exchange import HealthCheck, Outbound
from proxy.reasons import Reason
from tests.faults import replica
from tests.faults.house import PATIENCE, Load, config, house, policy
from tests.faults.replica import HEALTH, Server, servers
from tests.upstream.raw_upstream import INFER, READY, Step, client, raw_upstream, upstream


def shared(*urls: str, health: str = "every: 100ms, timeout: 2s") -> str:
    listed = ", ".join(f'"{url}"' for url in urls)
    return policy("URL").replace('url: "URL"', f"urls: [{listed}], health: {{{health}}}")


def name(server: Server) -> str:
    return f"replica:model-server:{server.address}"


async def test_a_killed_replica_loses_what_was_in_flight_and_no_more(tmp_path: Path) -> None:
    """A process, SIGKILL, eight clients. Each may lose the one question that was there; nothing is asked twice."""
    clients = 8
    with socket.socket() as one, socket.socket() as other:
        for taken in (one, other):
            taken.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1], other.getsockname()[1]]
    logs = [tmp_path / "one.log", tmp_path / "other.log"]
    rules = shared(*(f"http://127.0.0.1:{port}" for port in ports))
    killed = f"replica:model-server:127.0.0.1:{ports[0]}"
    with replica.process(ports[0], logs[0]) as first, replica.process(ports[1], logs[1]):
        for port in ports:
            await replica.answering(port)
        async with house(tmp_path, rules) as standing:
            load = Load(standing.proxy.port, standing.trust, standing.token)
            running = asyncio.create_task(load.run(clients))
            await _asked(load, 100)
            first.send_signal(signal.SIGKILL)
            await standing.until(killed, "warning")
            await _asked(load, load.asked + 100)
            assert _lines(logs[1]), "the other one answers"
            before = len(_lines(logs[0]))
            with replica.process(ports[0], logs[0]):
                await standing.until(killed, "ok")
                async with asyncio.timeout(PATIENCE):
                    while len(_lines(logs[0])) < before + 20:
                        await asyncio.sleep(0.02)
                load.stopping = True
                await running
            assert load.lost == []
            assert set(load.statuses) <= {200, 502}
            assert load.statuses[502] <= clients
            assert standing.proxy.house.readiness().ready
    hits = Counter(json.loads(body)["id"] for log in logs for body in _lines(log))
    assert max(hits.values()) == 1, "nothing was asked twice"
    assert {str(number) for number in load.answered} <= set(hits)


async def _asked(load: Load, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while load.asked < count:
            await asyncio.sleep(0.01)


def _lines(log: Path) -> list[bytes]:
    return [line for line in log.read_bytes().split(b"\n")[:-1] if line] if log.exists() else []


async def test_the_one_with_the_fewest_requests_under_way_is_asked(tmp_path: Path) -> None:
    async with servers(2) as both, house(tmp_path, shared(*(one.url for one in both))) as standing:
        for one in both:
            one.hold = asyncio.Event()
        first = asyncio.create_task(standing.ask())
        second = asyncio.create_task(standing.ask())
        slow, quick = both
        async with asyncio.timeout(PATIENCE):
            await slow.held.wait()
            await quick.held.wait()  # two at once: one each
        quick.hold.set()  # type: ignore[union-attr]
        for _ in range(10):
            assert (await standing.ask()).status == 200
        assert (slow.inferences, quick.inferences) == (1, 11)
        slow.hold.set()  # type: ignore[union-attr]
        assert [(await task).status for task in (first, second)] == [200, 200]
        slow.hold = None
        for _ in range(10):
            assert (await standing.ask()).status == 200
        assert (slow.inferences, quick.inferences) == (6, 16), "equals take turns"


async def test_who_is_unwell_is_passed_over_and_comes_back(tmp_path: Path) -> None:
    async with servers(2) as both, house(tmp_path, shared(*(one.url for one in both))) as standing:
        unwell, well = both
        unwell.ready = False
        await standing.until(name(unwell), "warning")
        before = unwell.inferences
        for _ in range(6):
            assert (await standing.ask()).status == 200
        assert unwell.inferences == before
        assert standing.check(name(well)) == "ok"
        assert standing.check("upstream:model-server") is None
        assert standing.proxy.house.readiness().ready
        page = standing.proxy.house.metrics.exposition().decode()
        assert f'hip_replica_up{{replica="{unwell.address}",upstream="model-server"}} 0.0' in page
        assert f'hip_replica_up{{replica="{well.address}",upstream="model-server"}} 1.0' in page
        assert 'hip_upstream_open{upstream="model-server"} 0.0' in page
        unwell.ready = True
        await standing.until(name(unwell), "ok")
        for _ in range(6):
            assert (await standing.ask()).status == 200
        assert unwell.inferences >= before + 3


async def test_where_nobody_is_well_nobody_is_asked(tmp_path: Path) -> None:
    """503 with the time to wait; the auditor reads which replica is how, the caller nothing of it."""
    async with servers(2) as both, house(tmp_path, shared(*(one.url for one in both))) as standing:
        both[0].ready = False
        await both[1].kill()
        for one in both:
            await standing.until(name(one), "warning")
        answer = await standing.ask()
        assert answer.status == 503
        assert int(answer.headers[b"retry-after"]) >= 1
        assert b"127.0.0.1" not in answer.body
        assert both[0].inferences == 0
        assert standing.check("upstream:model-server") == "warning"
        (record,) = standing.records("completion")
        assert record["reason"] == Reason.UPSTREAM_OPEN
        assert f"{both[0].address}: GET {HEALTH}: answered 503" in record["detail"]
        assert f"{both[1].address}: GET {HEALTH}: no connection" in record["detail"]
        assert "upstream_replica" not in record
        await both[1].start()
        await standing.status(200)


async def test_the_record_and_the_span_name_who_answered(tmp_path: Path) -> None:
    async with servers(2) as both:
        rules = shared(*(one.url for one in both))
        async with house(tmp_path, rules, config("telemetry: {file: spans.jsonl}")) as standing:
            for _ in range(4):
                assert (await standing.ask()).status == 200
            named = Counter(record["upstream_replica"] for record in standing.records("completion"))
        assert named == {one.address: 2 for one in both}
        spans = (tmp_path / "spans.jsonl").read_text()
        assert all(spans.count(f'"{one.address}"') == 2 for one in both)


async def test_a_request_that_was_written_is_not_repeated_and_one_that_was_not_is(tmp_path: Path) -> None:
    """The health checks of both are good all the time: only the requests themselves say that something is wrong."""
    async with servers(2) as both, house(tmp_path, shared(*(one.url for one in both))) as standing:
        broken, well = both
        broken.drop = True
        statuses = Counter([(await standing.ask()).status for _ in range(2 * FAILURES)])
        assert statuses == {502: FAILURES, 200: FAILURES}
        bodies = [*broken.bodies, *well.bodies]
        assert len(bodies) == 2 * FAILURES, "nothing went to both"
        details = [record["detail"] for record in standing.records("completion") if record["status"] == 502]
        assert all(f"model-server at {broken.address}" in detail for detail in details)
        for _ in range(6):  # after so many failures its circuit is open: the breaker is each replica's own
            assert (await standing.ask()).status == 200
        assert standing.check(name(broken)) == "warning"
        assert standing.check(name(well)) == "ok"


async def test_nobody_listens_before_the_checks_have_seen_it(tmp_path: Path) -> None:
    """No check comes in time: the request itself finds the way to the next one, and no client notices."""
    async with servers(2) as both, house(tmp_path, shared(*(one.url for one in both), health="every: 1h")) as standing:
        await _checked(both)
        await both[0].kill()
        for _ in range(2 * FAILURES):
            assert (await standing.ask()).status == 200
        await standing.until(name(both[0]), "warning")
        await both[1].kill()
        assert (await standing.ask()).status == 502


async def _checked(both: list[Server]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not all(one.asked for one in both):
            await asyncio.sleep(0.01)


async def test_a_reload_keeps_what_is_known_of_the_replicas_that_stay(tmp_path: Path) -> None:
    """No second check comes: what is known afterwards was known before. Connections stay, too."""
    async with servers(3) as all_:
        unwell, well, new = all_
        unwell.ready = False
        hourly = "every: 1h"
        async with house(tmp_path, shared(unwell.url, well.url, health=hourly)) as standing:
            await standing.until(name(unwell), "warning")
            assert (await standing.ask()).status == 200
            unwell.ready, connections = True, well.connections
            rules = shared(new.url, well.url, unwell.url, health=hourly)
            (tmp_path / "policy" / "policy.yaml").write_text(rules)
            await standing.recorded("policy", 1)
            await standing.until(name(new), "ok")
            for _ in range(6):
                assert (await standing.ask()).status == 200
            assert (new.inferences, well.inferences, unwell.inferences) == (3, 4, 0), "equals take turns"
            assert standing.check(name(unwell)) == "warning"
            assert well.connections == connections
            (tmp_path / "policy" / "policy.yaml").write_text(shared(new.url, health=hourly))
            await standing.recorded("policy", 2)
            assert standing.check(name(unwell)) is standing.check(name(well)) is None
            assert (await standing.ask()).status == 200


# ── the client alone ────────────────────────────────────────────────────────────────────────────────────────────────

NEVER = HealthCheck(HEALTH, 3600.0, 1.0, 2, 2)


def group(*ports: int, **other: object):
    members = tuple(upstream(port, health=NEVER, **other) for port in ports)
    return upstream(ports[0], replicas=members, **other)


async def test_a_stream_counts_until_it_ends() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    end = asyncio.Event()
    script = [[head, b"2\r\na\n\r\n", end, b"0\r\n\r\n"]]
    async with raw_upstream(script) as one, raw_upstream() as other, client() as sending:
        to = group(one.port, other.port)
        sending.retain([to])
        async with sending.stream(to, INFER) as reply:
            streaming = reply.replica
            for _ in range(3):
                assert (await sending.send(to, READY)).replica != streaming
            end.set()
            assert [piece async for piece in reply.pieces] == [b"a\n"]
        answered = [(await sending.send(to, READY)).replica for _ in range(4)]
        assert Counter(answered) == {f"127.0.0.1:{one.port}": 2, f"127.0.0.1:{other.port}": 2}
        assert [found.pending for found in sending.replicas()] == [0, 0]


@pytest.mark.parametrize("request_", [INFER, READY], ids=["POST", "GET"])
async def test_a_stream_finds_the_next_one_too(request_: Outbound) -> None:
    async with raw_upstream() as gone:
        pass
    async with raw_upstream() as there, client() as sending:
        for ports in ((gone.port, there.port), (there.port, gone.port)):
            async with sending.stream(group(*ports), request_) as reply:
                assert reply.replica == f"127.0.0.1:{there.port}"
                assert [piece async for piece in reply.pieces]
        assert len(there.requests) == 2


async def test_a_host_that_is_no_name_is_somebody_who_is_not_there() -> None:
    """It ends neither the request nor the checks."""
    checked = HealthCheck(HEALTH, 0.1, 1.0, 1, 1)
    async with raw_upstream() as there, client() as sending:
        members = (upstream(1, host="a..b", health=checked), upstream(there.port, health=NEVER))
        to = upstream(1, host="a..b", replicas=members)
        sending.retain([to])
        assert (await sending.send(to, INFER)).replica == f"127.0.0.1:{there.port}"
        stop = asyncio.Event()
        checking = asyncio.create_task(sending.follow(stop))
        async with asyncio.timeout(PATIENCE):
            while not next(sending.replicas()).fault:
                await asyncio.sleep(0.01)
        stop.set()
        await checking


async def test_a_group_that_the_policy_has_dropped_serves_whoever_began_before_and_is_gone() -> None:
    async with raw_upstream() as one, raw_upstream() as other, client() as sending:
        before, after = group(one.port, other.port), group(other.port)
        sending.retain([before])
        sending.retain([after])
        answered = {(await sending.send(before, INFER)).replica for _ in range(4)}
        assert f"127.0.0.1:{one.port}" in answered
        assert [found.upstream.port for found in sending.replicas()] == [other.port]
        assert sending.down()["u"] is False


async def test_a_client_that_leaves_gives_its_place_back() -> None:
    async with raw_upstream([[Step.HANG]]) as one, client() as sending:
        to = group(one.port)
        sending.retain([to])
        waiting = asyncio.create_task(sending.send(to, INFER))
        await one.until(requests=1)
        assert [found.pending for found in sending.replicas()] == [1]
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [found.pending for found in sending.replicas()] == [0]
