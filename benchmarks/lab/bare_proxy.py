"""The proxy that one writes in ten minutes with Starlette and httpx: passes everything through, protects nothing."""

import os

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

_client = httpx.AsyncClient(limits=httpx.Limits(max_connections=512, max_keepalive_connections=512), trust_env=False)
_HOP_BY_HOP = {"host", "content-length", "connection", "transfer-encoding"}


async def forward(request: Request) -> Response:
    headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
    streams = request.headers.get("accept") == "text/event-stream"
    base = os.environ["STREAMING_UPSTREAM" if streams else "UPSTREAM"]
    body = await request.body()
    out = _client.build_request(request.method, base + request.url.path, headers=headers, content=body)
    reply = await _client.send(out, stream=streams)
    kind = reply.headers.get("content-type")
    if streams:
        return StreamingResponse(reply.aiter_raw(), reply.status_code, media_type=kind)
    return Response(reply.content, reply.status_code, media_type=kind)


app = Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "POST"])])
