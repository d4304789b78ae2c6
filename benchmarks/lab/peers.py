"""The peers, each set up as its own documentation says, one worker, quiet, keep-alive on both sides.

No TLS session is resumed anywhere: a new connection is a whole handshake for everybody.
"""

import json
from pathlib import Path

from benchmarks.lab.process import CONTENDER_CORE, Started, free_port, start
from benchmarks.lab.setting import ANALYST, TRIAL, Setting
from benchmarks.lab.upstream import CHAT_MODEL

BENCH, LITELLM = ".venv-bench", ".venv-litellm"  # made by `make bench`
LITELLM_KEY = "sk-laboratory"

_NGINX = """
worker_processes 1; daemon off; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; tcp_nodelay on;
  client_max_body_size 0; client_body_buffer_size 12m;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
  scgi_temp_path {dir}/s;
  ssl_certificate {certs}/server.crt; ssl_certificate_key {certs}/server.key;
  ssl_session_cache off; ssl_session_tickets off; ssl_protocols TLSv1.2 TLSv1.3;
  upstream plain {{ server 127.0.0.1:{plain}; keepalive 512; keepalive_requests 100000000; }}
  upstream streaming {{ server 127.0.0.1:{streaming}; keepalive 64; }}
  map $http_accept $where {{ default plain; text/event-stream streaming; }}
  server {{
    listen 127.0.0.1:{port} ssl;
    location / {{
      proxy_pass http://$where; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


def nginx(setting: Setting) -> Started:
    """TLS in front, a pool behind, nothing between."""
    place, port = setting.place("nginx"), free_port()
    config = place / "nginx.conf"
    config.write_text(
        _NGINX.format(
            dir=place,
            port=port,
            certs=setting.certificates.server.certificate.parent,
            plain=setting.upstream.plain.port,
            streaming=setting.upstream.streaming.port,
        )
    )
    return start(["nginx", "-e", place / "error.log", "-c", config], CONTENDER_CORE, port, place / "log")


def envoy(setting: Setting) -> Started:
    """jwt_authn with its cache, rbac on the role claim, local_ratelimit; no access log."""
    place, port = setting.place("envoy"), free_port()
    config = place / "envoy.json"
    config.write_text(json.dumps(_envoy_config(setting, port)))
    command = [setting.root / BENCH / "bin" / "envoy", "-c", config, "--concurrency", "1", "--log-level", "warn"]
    return start([*command, "--disable-hot-restart"], CONTENDER_CORE, port, place / "log")


def _typed(kind: str, **fields: object) -> dict[str, object]:
    return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}


def _filter(name: str, kind: str, **fields: object) -> dict[str, object]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": _typed(f"extensions.filters.http.{kind}", **fields)}


def _role(name: str) -> dict[str, object]:
    return {
        "metadata": {
            "filter": "envoy.filters.http.jwt_authn",
            "path": [{"key": "token"}, {"key": "realm_access"}, {"key": "roles"}],
            "value": {"list_match": {"one_of": {"string_match": {"exact": name}}}},
        }
    }


def _bucket(stat: str, tokens: int, interval: str) -> dict[str, object]:
    everybody = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "stat_prefix": stat,
        "token_bucket": {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": interval},
        "filter_enabled": everybody,
        "filter_enforced": everybody,
    }


def _envoy_config(setting: Setting, port: int) -> dict[str, object]:
    certs = setting.certificates.server
    provider = {
        "issuer": setting.issuer,
        "audiences": [setting.audience],
        "local_jwks": {"filename": str(setting.directory / "jwks.json")},
        "payload_in_metadata": "token",
        "jwt_cache_config": {"jwt_cache_size": 100},
    }
    roles = [_role(role) for role in (ANALYST, TRIAL)]
    limit = "extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
    limited = {"envoy.filters.http.local_ratelimit": _typed(limit, **_bucket("none", 1, "86400s"))}
    routes = [
        {
            "match": {"prefix": "/", "headers": [{"name": "x-limited", "present_match": True}]},
            "route": {"cluster": "plain", "timeout": "10s"},
            "typed_per_filter_config": limited,
        },
        {
            "match": {"prefix": "/", "headers": [{"name": "accept", "string_match": {"exact": "text/event-stream"}}]},
            "route": {"cluster": "streaming", "timeout": "0s"},
        },
        {"match": {"prefix": "/"}, "route": {"cluster": "plain", "timeout": "10s"}},
    ]
    filters = [
        _filter(
            "jwt_authn",
            "jwt_authn.v3.JwtAuthentication",
            providers={"lab": provider},
            rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "lab"}}],
        ),
        _filter(
            "rbac",
            "rbac.v3.RBAC",
            rules={
                "action": "ALLOW",
                "policies": {"analysts": {"permissions": [{"any": True}], "principals": roles}},
            },
        ),
        _filter("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", **_bucket("plenty", 1_000_000_000, "60s")),
        _filter("router", "router.v3.Router"),
    ]
    manager = _typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="lab",
        codec_type="HTTP1",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=filters,
    )
    files = {
        "certificate_chain": {"filename": str(certs.certificate)},
        "private_key": {"filename": str(certs.key)},
    }
    tls = _typed(
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={"tls_certificates": [files]},
        disable_stateless_session_resumption=True,
        disable_stateful_session_resumption=True,
    )
    chain = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    clusters = [
        _cluster("plain", setting.upstream.plain.port),
        _cluster("streaming", setting.upstream.streaming.port),
    ]
    listeners = [{"name": "lab", "address": address, "filter_chains": [chain]}]
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def _cluster(name: str, port: int) -> dict[str, object]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    many = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [many]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def bare(setting: Setting) -> Started:
    """What one writes first: Starlette, httpx.AsyncClient, uvicorn with its fastest parts."""
    place, port = setting.place("bare"), free_port()
    app = Path(__file__).parent
    command = [setting.root / BENCH / "bin" / "uvicorn", "--app-dir", app, "bare_proxy:app", "--port", str(port)]
    quiet = ["--log-level", "warning", "--no-access-log", "--loop", "uvloop", "--http", "httptools"]
    where = {"UPSTREAM": setting.upstream.url, "STREAMING_UPSTREAM": setting.upstream.streaming_url}
    return start([*command, *quiet], CONTENDER_CORE, port, place / "log", environment=where)


def litellm(setting: Setting) -> Started:
    """One OpenAI-compatible model behind a master key; nothing logged, nothing fetched, nothing stored."""
    place, port = setting.place("litellm"), free_port()
    parameters = {"model": f"openai/{CHAT_MODEL}", "api_base": f"{setting.upstream.url}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": CHAT_MODEL, "litellm_params": parameters}],
        "general_settings": {"master_key": LITELLM_KEY},
        "litellm_settings": {"telemetry": False},
    }
    (place / "config.yaml").write_text(json.dumps(config))
    command = [setting.root / LITELLM / "bin" / "litellm", "--config", place / "config.yaml", "--host", "127.0.0.1"]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "HOME": str(place)}
    workers = ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    return start([*command, *workers], CONTENDER_CORE, port, place / "log", environment=environment, directory=place)
