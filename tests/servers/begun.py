"""`hip init` before a real server, as a user types it: what it found, and `hip serve` from what it wrote."""

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.hip import serving
from tests.servers.questions import Question
from tests.servers.running import RunningServer

STATUS = " -s -o /dev/null -w '%{http_code}'"  # curl's options for the status alone


@dataclass(frozen=True, slots=True)
class Begun:
    """A directory that `hip init` has written, and the proxy that serves from it."""

    told: dict[str, Any]  # what `hip init --json` printed
    directory: Path
    port: int

    def next(self, number: int) -> str:
        """Return one of the commands that were printed: 2 is the token, 3 asks with it, 4 without."""
        return self.told["next"][number].replace("localhost:PORT", f"localhost:{self.port}")

    def statuses(self) -> tuple[str, str]:
        """Run the printed commands in a shell: the status with a token, and without."""
        return shell(f"{self.next(2)}\n{self.next(3)}{STATUS}"), shell(f"{self.next(4)}{STATUS}")

    def ask(self, question: Question, token: str = "") -> httpx.Response:
        """Ask through the proxy, with a token of the development issuer unless another is given."""
        bearer = token or hip("token", str(self.directory)).stdout.strip()
        trust = ssl.create_default_context(cafile=self.directory / "certs/ca.crt")
        headers = {**dict(question.headers), "authorization": f"Bearer {bearer}"}
        url = f"https://localhost:{self.port}{question.path}"
        with httpx.Client(verify=trust, trust_env=False, timeout=30) as http:
            return http.request(question.method, url, content=question.body, headers=headers)


def hip(*arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run `hip` to its end."""
    command = [sys.executable, "-m", "proxy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def shell(script: str, cwd: Path | None = None, code: int = 0) -> str:
    """Run a script as a user's shell would, with our `hip` in its path; return what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "no_proxy": "*", "COLUMNS": "200"}
    done = subprocess.run(
        ["bash", "-eu", "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == code, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def hip_init(server: RunningServer, directory: Path, options: Sequence[str] = ()) -> Iterator[Begun]:
    """Let `hip init` look at a server, `hip check` at what it wrote, and serve from it."""
    made = hip(
        "init",
        *("--upstream", server.url, "--directory", str(directory), "--port", "0", "--admin-port", "0", "--json"),
        *options,
    )
    assert made.returncode == 0, made.stderr
    checked = hip("check", str(directory / "policies"))
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
    assert "no test touches" not in checked.stdout
    with serving(directory) as (_, port, _admin):
        yield Begun(json.loads(made.stdout), directory, port)
