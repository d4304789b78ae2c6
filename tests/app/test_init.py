"""`hip init` and `hip token` as a user types them: what they write, what they refuse to write, and how they end."""

import json
import re
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from proxy.adapters.mint import Minted, mint
from proxy.dialects import DIALECTS
from proxy.identity.token import peek
from proxy.policy.compile import compile_policy
from proxy.policy.starter import Ports, Provider, Server, names, starter
from tests.servers.begun import hip

MODEL = {"name": "digits", "versions": ["1"], "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}
OIP = {
    ("GET", "/v2"): {"name": "demo", "version": "1"},
    ("POST", "/v2/repository/index"): [
        {"name": "digits", "state": "READY"},
        {"name": "a/b"},
        {"name": "cold", "state": ""},
    ],
    ("GET", "/v2/models/digits"): MODEL,
}


@contextmanager
def server(
    answers: dict[tuple[str, str], object], status: int = 404, tls: Minted | None = None
) -> Iterator[tuple[str, list]]:
    """A server that says what it is told to say; yield its address and what it was asked."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append((self.command, self.path))
            self.rfile.read(int(self.headers.get("content-length", 0)))
            found = answers.get((self.command, self.path))
            body = b"{}" if found is None else json.dumps(found).encode()
            self.send_response(status if found is None else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_OPTIONS = answer  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.server.certificate, tls.server.key)
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{httpd.server_port}", asked
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


@pytest.fixture
def oip() -> Iterator[str]:
    with server(OIP) as (url, _):
        yield url


def test_it_says_what_it_found_what_is_closed_and_what_comes_next(oip, tmp_path):
    done = hip("init", "--upstream", oip, "--directory", "hip", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout
    assert f"{oip} speaks oip-v2 (demo 1), 1 model:\n  digits  takes x: FP32 [-1, 4]\n" in said
    assert "not ready, so left out: cold" in said
    assert "left out, since no policy can name them: a/b" in said
    assert "closed:  every caller without a token" in said
    assert "  hip serve --config hip/hip.yaml\n" in said
    assert "  TOKEN=$(hip token hip --role analyst)\n" in said
    assert json.loads((tmp_path / "hip/first-request.json").read_text())["inputs"][0]["shape"] == [1, 4]
    checked = hip("check", "hip/policies", cwd=tmp_path)
    assert checked.returncode == 0
    assert "1 rule, 1 model, 1 issuer, 5 tests, no findings" in checked.stdout


def test_secrets_are_the_owners_alone(oip, tmp_path):
    assert hip("init", "--upstream", oip, "--directory", str(tmp_path / "hip")).returncode == 0
    for name in ("certs/server.key", "certs/ca.key", "issuer/signing.key"):
        assert stat.S_IMODE((tmp_path / "hip" / name).stat().st_mode) == 0o600


def test_nothing_is_overwritten_and_force_keeps_what_cannot_be_made_again(oip, tmp_path):
    place = tmp_path / "hip"
    command = ("init", "--upstream", oip, "--directory", str(place))
    assert hip(*command).returncode == 0
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    again = hip(*command, "--role", "other")
    assert again.returncode == 2
    assert "already there, and not overwritten" in again.stderr
    assert "nothing was written" in again.stderr
    assert before == {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    forced = hip(*command, "--role", "other", "--force")
    assert forced.returncode == 0
    changed = {path.name for path, content in before.items() if path.read_bytes() != content}
    assert changed == {"40-rules.yaml", "first.yaml"}
    assert "kept as they were: certs/server.crt" in forced.stdout


def test_force_goes_without_a_key_that_somebody_keeps_elsewhere(oip, tmp_path):
    command = ("init", "--upstream", oip, "--directory", str(tmp_path), "--force")
    assert hip(*command).returncode == 0
    (tmp_path / "certs/ca.key").unlink()
    again = hip(*command, "--json")
    assert again.returncode == 0
    assert "certs/ca.key" not in json.loads(again.stdout)["files"]


def test_a_policy_beside_it_that_says_otherwise_is_a_finding(oip, tmp_path):
    command = ("init", "--upstream", oip, "--directory", str(tmp_path))
    assert hip(*command).returncode == 0
    (tmp_path / "policies/50-mine.yaml").write_text("version: v1\nbudgets: {first: [1 requests/minute]}\n")
    done = hip(*command, "--force")
    assert done.returncode == 1
    assert "50-mine.yaml" in done.stderr
    assert json.loads(hip(*command, "--force", "--json").stdout)["findings"]


def test_with_an_identity_provider_no_issuer_is_made(oip, tmp_path):
    options = ("--issuer", "https://idp.example.com", "--audience", "models", "--roles-claim", "groups")
    done = hip("init", "--upstream", oip, "--directory", str(tmp_path), *options, "--json")
    assert done.returncode == 0
    assert not (tmp_path / "issuer").exists()
    policy = compile_policy({p.name: p.read_bytes() for p in sorted((tmp_path / "policies").glob("*.yaml"))})
    (issuer,) = policy.issuers.values()
    assert (issuer.issuer, issuer.audience, issuer.discovery) == ("https://idp.example.com", "models", True)
    assert issuer.roles_claim == ("groups",)
    assert hip("token", str(tmp_path)).returncode == 2


WRONG = [
    # name, options, what is said
    ("no address", ("--upstream", "127.0.0.1:8080"), "not the address of a server"),
    ("a password in it", ("--upstream", "http://u:secret@127.0.0.1:8080"), "not the address of a server"),
    (
        "in the clear to elsewhere",
        ("--upstream", "http://192.0.2.1:8080"),
        "everyone on the way reads inputs and scores",
    ),
    ("the word for it in vain", ("--plaintext",), "leave it out"),
    ("an unknown dialect", ("--dialect", "oip-v1"), "unknown `oip-v1`, did you mean `oip-v2`?"),
    ("a dialect that needs a description", ("--dialect", "generic"), "generic: {infer: /classify"),
    ("an issuer without audience", ("--issuer", "https://idp.example.com"), "needs --audience"),
    ("an audience without issuer", ("--audience", "models"), "belong to an --issuer"),
    ("an issuer in the clear", ("--issuer", "http://idp.example.com", "--audience", "a"), "use https"),
    ("a role that means everybody", ("--role", "any"), "the word `any`"),
    ("a model twice", ("--model", "digits", "--model", "digits"), "the same one twice"),
    ("a CA that is not there", ("--ca-file", "none.pem"), "no CA can be read here"),
    ("two models that no request names", ("--dialect", "mlflow", "--model", "a", "--model", "b"), "there is one only"),
]


@pytest.mark.parametrize(("options", "said"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_wrong_use_writes_nothing(oip, tmp_path, options, said):
    place = tmp_path / "hip"
    done = hip("init", *(() if "--upstream" in options else ("--upstream", oip)), "--directory", str(place), *options)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "secret" not in done.stderr
    assert not place.exists()
    assert "Traceback" not in done.stderr


UNDECIDED = [
    # name, answers, status of all others, options, what is said
    ("nobody knows it", {("GET", "/health"): {}}, 404, (), "answers like none of kserve-v1, mlflow, oip-v2, openai"),
    ("it wants credentials", {}, 401, (), "hip sends no credentials to model servers"),
    ("it lists no models", {("GET", "/v2"): OIP["GET", "/v2"]}, 404, (), "name them with --model NAME"),
    ("it has no such model", OIP, 404, ("--model", "digit"), "has no `digit`, did you mean `digits`?; it has digits"),
    (
        "none is ready",
        {**OIP, ("POST", "/v2/repository/index"): [{"name": "cold", "state": "LOADING"}]},
        404,
        (),
        "none of its models is ready: cold",
    ),
]


@pytest.mark.parametrize(
    ("answers", "status", "options", "said"), [u[1:] for u in UNDECIDED], ids=[u[0] for u in UNDECIDED]
)
def test_what_cannot_be_told_writes_nothing(tmp_path, answers, status, options, said):
    place = tmp_path / "hip"
    with server(answers, status=status) as (url, _):
        done = hip("init", "--upstream", url, "--directory", str(place), *options)
    assert done.returncode == 3, done.stderr
    assert said in " ".join(done.stderr.split())
    assert not place.exists()


def test_a_server_that_is_not_there(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    done = hip("init", "--upstream", f"http://127.0.0.1:{port}", "--directory", str(tmp_path / "hip"))
    assert done.returncode == 3
    assert "no answer (ConnectError" in done.stderr


def test_a_server_with_a_certificate_of_its_own_ca(tmp_path):
    """Not believed without its CA; with it, the policy names the CA too, wherever hip is started from."""
    minted = mint(tmp_path / "its", ["127.0.0.1"], [])
    with server(OIP, tls=minted) as (url, _):
        refused = hip("init", "--upstream", url, "--directory", "hip", cwd=tmp_path)
        assert refused.returncode == 3
        assert "name the CA of its certificate with --ca-file" in refused.stderr
        done = hip("init", "--upstream", url, "--directory", "hip", "--ca-file", "its/ca.crt", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert f'ca_file: "{minted.ca.certificate}"' in (tmp_path / "hip/policies/20-models.yaml").read_text()


def test_the_questions_only_read(tmp_path):
    with server(OIP) as (url, asked):
        assert hip("init", "--upstream", url, "--directory", str(tmp_path)).returncode == 0
    assert {path for method, path in asked if method == "POST"} == {"/v2/repository/index"}
    assert {method for method, _ in asked} <= {"GET", "OPTIONS", "POST"}


def test_a_token_says_who_and_how(oip, tmp_path):
    assert hip("init", "--upstream", oip, "--directory", str(tmp_path)).returncode == 0
    made = hip("token", str(tmp_path), "--user", "eve", "--role", "trial", "--amr", "pwd", "--minutes", "5")
    said = peek(made.stdout.strip())
    assert (said.algorithm, said.token_type, said.issuer) == ("ES256", "at+jwt", "https://issuer.hip.test")
    assert (said.claims["sub"], said.claims["amr"]) == ("eve", ["pwd"])
    assert said.claims["realm_access"] == {"roles": ["trial"]}
    assert said.claims["exp"] - said.claims["iat"] == 300  # type: ignore[operator]
    assert hip("token", str(tmp_path / "elsewhere")).returncode == 2


# ── the files, without a server ─────────────────────────────────────────────────────────────────────────────────

PROVIDER = Provider("corp", "https://idp.example.com", "models", "discovery: true", "[ES256]", "roles", "")


@pytest.mark.parametrize("dialect", sorted(DIALECTS.keys() - {"generic"}))
@pytest.mark.parametrize("role", ["analyst", "true", "a role: {with} # signs", 'quo"te'], ids=range(4))
def test_every_dialect_and_any_role_makes_a_policy_without_a_warning(dialect, role):
    one, _ = names(dialect, ["null"])
    files = starter(Server("http://127.0.0.1:1", dialect, one), PROVIDER, role, Ports(0, 0))
    policy = compile_policy({name: files[name].encode() for name in files if re.fullmatch(r"policies/[^/]+", name)})
    assert policy.warnings == ()
    assert policy.rules[0].scope.roles == {role}
    assert list(policy.models) == ["null"]


def test_names_for_what_servers_list():
    found, left = names("openai", ["/models/llama-3-8b.gguf", "org/Model 1", "gpt", "other/gpt", "any", "///"])
    assert found == {"llama-3-8b": "/models/llama-3-8b.gguf", "Model-1": "org/Model 1", "gpt": "gpt"}
    assert left == ["other/gpt", "any", "///"]
    assert names("oip-v2", ["a", "a/b", "..", "x" * 65]) == ({"a": "a"}, ["a/b", "..", "x" * 65])


def test_plain_http_to_another_machine_is_a_word_in_the_policy():
    server = Server("http://192.0.2.1:1", "oip-v2", {"a": "a"}, plaintext=True)
    files: dict[str, str] = dict(starter(server, PROVIDER, "analyst", Ports(0, 0)))
    assert "plaintext: allowed" in files["policies/20-models.yaml"]
    assert "everyone on the way reads" in files["policies/20-models.yaml"]
    assert Path("hip.yaml").name in files
