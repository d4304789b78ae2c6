"""Starting a real server for a test session, and ending it whatever happens.

Every server is a process group of its own with a log file, on loopback ports that were free a moment ago; it is ready
when its health answers, and the whole group ends with the `with` block: some of them leave their workers behind.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-servers"
PYTHON = ENVIRONMENT / "bin" / "python"

READY_WITHIN = 90.0  # seconds; five is usual, but the machine may be busy with us
POLL_EVERY = 0.05  # seconds
PROBE_WITHIN = 2.0  # seconds
END_WITHIN = 10.0  # seconds from SIGTERM to SIGKILL
LOG_TAIL = 3_000  # characters of the log that a failed start shows

# Nothing of the visitor's environment reaches a server, and no server reaches out.
QUIET: Mapping[str, str] = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_PROXY": "*",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A real server that answers its health."""

    name: str
    url: str  # without a slash at its end
    log: Path
    pid: int


def require_environment(python: Path, ci: bool) -> None:
    """Skip where the environment is missing; in CI that is a failure, since nothing would be tested."""
    if python.exists():
        return
    reason = f"no {python}: `make {ENVIRONMENT.name}/.ready` installs requirements/servers.txt"
    if ci:
        pytest.fail(reason)
    pytest.skip(reason)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody has now; held open together, so that they differ."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in held]


def run_once(command: Sequence[str | Path]) -> str:
    """Run a program of the servers' environment to its end and return what it printed."""
    done = subprocess.run(command, env=_environment({}), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{Path(command[0]).name} ended with {done.returncode}:\n{done.stderr[-LOG_TAIL:]}")
    return done.stdout


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    port: int,
    health: str,
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[RunningServer]:
    """Start a server in a directory, wait until `health` answers 200, and end it with the block."""
    log = directory / f"{name}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=_environment(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        server = RunningServer(name, f"http://127.0.0.1:{port}", log, process.pid)
        _await_health(server, process, health)
        yield server
    finally:
        _end(process)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    path = os.pathsep.join((str(PYTHON.parent), os.environ.get("PATH", os.defpath)))
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PATH": path, **QUIET, **extra}


def _await_health(server: RunningServer, process: subprocess.Popen[bytes], health: str) -> None:
    deadline = time.monotonic() + READY_WITHIN
    with httpx.Client(base_url=server.url, trust_env=False, timeout=PROBE_WITHIN) as http:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if http.get(health).status_code == httpx.codes.OK:
                    return
            time.sleep(POLL_EVERY)
    end = f"ended with {process.returncode}" if process.returncode is not None else f"not ready in {READY_WITHIN:.0f} s"
    pytest.fail(f"{server.name} {end}; the end of its log:\n{server.log.read_text(errors='replace')[-LOG_TAIL:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the group that the process leads: politely, then surely."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(END_WITHIN)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also workers that outlived their parent
    process.wait()
