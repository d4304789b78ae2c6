"""One invariant: any bytes from an upstream give a reply or the port's error, and the next request notices nothing."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_upstream import FINE, INFER, Step, client, ok, raw_upstream, upstream
from test_wire import RESPONSES

from proxy.errors import UpstreamFault, UpstreamTimeout
from proxy.exchange import Reply

ENDS = st.sampled_from([Step.CLOSE, Step.RESET, Step.END])


@given(st.lists(RESPONSES, min_size=1, max_size=3), ENDS, st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes(parts: list[bytes], end: Step, streaming: bool) -> None:
    async def run() -> None:
        async with raw_upstream([[*parts, end, Step.HANG]]) as server, client() as sending:
            to = upstream(server.port, max_reply_bytes=1000)
            try:
                if streaming:
                    async with sending.stream(to, INFER) as streamed:
                        assert len(b"".join([piece async for piece in streamed.pieces])) <= 1000
                else:
                    reply = await sending.send(to, INFER)
                    assert isinstance(reply, Reply)
                    assert len(reply.body) <= 1000
            except (UpstreamFault, UpstreamTimeout):
                pass
            await server.until(left=1)  # it has said its last word, and so have we
            assert ok((await sending.send(to, INFER)).body) == FINE[0]

    asyncio.run(run())
