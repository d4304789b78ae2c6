"""The machinery itself: a server that fails says why, and nothing outlives its block."""

import contextlib
import os
import select
import sys
from pathlib import Path

import pytest

from tests.servers.running import free_ports, require_environment, running

WAIT = 10.0  # seconds, of which none is used

WITH_A_CHILD = """
import http.server, pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"])
pathlib.Path("child").write_text(str(child.pid))
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""


def test_a_missing_environment_skips_here_and_fails_in_ci(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match=r"requirements/servers\.txt"):
        require_environment(tmp_path / "python", ci=False)
    with pytest.raises(pytest.fail.Exception, match=r"requirements/servers\.txt"):
        require_environment(tmp_path / "python", ci=True)
    require_environment(Path(sys.executable), ci=True)


def test_ports_differ() -> None:
    assert len(set(free_ports(5))) == 5


def test_a_server_that_ends_shows_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no model here')"]
    with (
        pytest.raises(pytest.fail.Exception, match=r"ended with 1(.|\n)*no model here"),
        running("broken", command, *free_ports(1), "/", tmp_path),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="waits for a process that is not ours to wait for")
def test_stubborn_children_end_with_the_block_even_when_it_fails(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(RuntimeError))
        server = stack.enter_context(running("p", [sys.executable, "-c", WITH_A_CHILD, str(port)], port, "/", tmp_path))
        child = int((tmp_path / "child").read_text())
        assert os.getpgid(child) == server.pid
        ended = os.pidfd_open(child)
        raise RuntimeError
    assert select.select([ended], [], [], WAIT)[0] == [ended]
    os.close(ended)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
