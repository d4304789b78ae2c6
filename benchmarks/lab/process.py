"""Processes on their cores, and what the kernel says they cost.

Core 0 is for the contender alone; load and upstream share core 1, so they bound what a very fast contender can show.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTENDER_CORE, LAB_CORE = 0, 1
START_SECONDS = 60.0  # LiteLLM imports for most of a minute on a cold disk
END_SECONDS = 10.0
LOG_TAIL = 4_000  # characters of a server's log to show when it does not start
_TICK = os.sysconf("SC_CLK_TCK")  # CPU time in /proc counts in these
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Started:
    """A server that accepts connections. `log` has what it said."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    def stop(self) -> None:
        """End it, in order if it can."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    """Return a port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(
    command: Sequence[str | Path],
    core: int,
    port: int,
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Started:
    """Start a server on a core and return when its port accepts; SystemExit with its log when it does not."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, command)],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            cwd=directory,
            env={**os.environ, **(environment or {})},
        )
    server = Started(process, port, log)
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.02)
    server.stop()
    print(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-LOG_TAIL:]}", file=sys.stderr)
    raise SystemExit(1)


# ── what the kernel says ────────────────────────────────────────────────────────────────────────────────────────────


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, its threads, its children, and those of them that have ended."""
    return sum(_times(found) for found in _tree(pid))


def resident_mib(pid: int) -> float:
    """Return the memory that a process and its children hold."""
    return sum(_resident(found) for found in _tree(pid))


def peak_resident_mib(pid: int) -> float:
    """Return the most that they ever held, since `forget_peak`."""
    return sum(_peak(found) for found in _tree(pid))


def forget_peak(pid: int) -> None:
    """Begin to look for the peak anew."""
    for found in _tree(pid):
        Path(f"/proc/{found}/clear_refs").write_text("5")  # proc(5): resets VmHWM


class Others:
    """How much of the machine somebody else used, in cores, since this was made."""

    def __init__(self, own: Callable[[], float] = lambda: cpu_seconds(os.getpid())) -> None:
        self._own = own
        self._began, self._busy, self._ours = time.monotonic(), _busy(), own()

    def cores(self) -> float:
        took = time.monotonic() - self._began
        return max(0.0, (_busy() - self._busy) - (self._own() - self._ours)) / took


def _tree(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left += parents.get(pid, ())
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of proc(5) `stat` from `state` on; none for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _times(pid: int) -> float:
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) / _TICK if fields else 0.0  # utime, stime, cutime, cstime


def _resident(pid: int) -> float:
    fields = _stat(pid)
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / _MIB if fields else 0.0


def _peak(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def _busy() -> float:
    """Return the CPU time that all cores have spent on anything but waiting; stolen time counts as busy."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, soft, steal = fields
    return (user + nice + system + irq + soft + steal) / _TICK
