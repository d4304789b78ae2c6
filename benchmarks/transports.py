"""Which HTTP client stands between us and the model servers: speed and safety of the candidates, in one run.

    python benchmarks/transports.py [--quick] [--json FILE]

Every candidate is a process of its own on the first core, nginx is on the second. Rounds are interleaved: each
candidate runs each case once per round, in a turning order, and the table gives the medians of the rounds. Every client
is configured as safely as it can be; the safety matrix is what each of them then does with a raw, scripted upstream.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
CANDIDATES = ("httpx", "aiohttp", "pyreqwest", "hip")
CASES = {"small, 1": ("small", 1), "small, 32": ("small", 32), "1 MB, 1": ("large", 1), "1 MB, 32": ("large", 32)}
CLIENT_CORE, UPSTREAM_CORE = 0, 1
FULL, QUICK = (5, 1.0), (2, 0.5)  # rounds, seconds of one measurement

NGINX = """
worker_processes 1; daemon off; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; sendfile on; tcp_nodelay on;
  client_max_body_size 0; client_body_buffer_size 2m; default_type application/json;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
  scgi_temp_path {dir}/s;
  server {{ listen 127.0.0.1:{port}; root {dir}/www; error_page 405 =200 $uri; }}
}}
"""


def start_nginx(directory: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Serve one small and one large JSON file to GET and POST; the request's body is read and dropped."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    www = directory / "www"
    www.mkdir()
    www.chmod(0o755)
    directory.chmod(0o755)
    scores = [round(n / 10, 6) for n in range(10)]
    output = {"name": "scores", "shape": [1, 10], "datatype": "FP32", "data": scores}
    (www / "small").write_text(json.dumps({"model_name": "iris", "outputs": [output]}))
    (www / "large").write_bytes(b'{"data": "' + b"x" * (1 << 20) + b'"}')
    (directory / "nginx.conf").write_text(NGINX.format(dir=directory, port=port))
    command = [
        "taskset",
        "-c",
        str(UPSTREAM_CORE),
        "nginx",
        "-e",
        f"{directory}/error.log",
        "-c",
        f"{directory}/nginx.conf",
    ]
    server = subprocess.Popen(command)
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return server, port
        time.sleep(0.02)
    raise SystemExit("nginx does not start: apt-get install nginx-light")


class Candidate:
    """A client in its own process, spoken to in JSON lines."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        command = [
            "taskset",
            "-c",
            str(CLIENT_CORE),
            sys.executable,
            str(HERE / "transport_client.py"),
            name,
            str(port),
        ]
        env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.version = self.ask("hello")["version"]

    def ask(self, *words: object) -> dict[str, object]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            print(f"{self.name}: the client process has ended; its traceback is above", file=sys.stderr)
            raise SystemExit(2)
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def measure(candidates: list[Candidate], rounds: int, seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """Return case → candidate → medians of the rounds, and the spread of the throughput."""
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for turn in range(rounds):
        for case, (path, connections) in CASES.items():
            at = turn % len(candidates)
            for candidate in candidates[at:] + candidates[:at]:
                run = candidate.ask("run", path, connections, seconds)
                runs.setdefault((case, candidate.name), []).append(run)  # type: ignore[arg-type]
    table: dict[str, dict[str, dict[str, float]]] = {case: {} for case in CASES}
    for (case, name), found in runs.items():
        row = {key: statistics.median(run[key] for run in found) for key in found[0]}
        rates = [run["rate"] for run in found]
        row["spread"] = (max(rates) - min(rates)) / row["rate"]
        table[case][name] = row
    return table


def show(table: dict[str, dict[str, dict[str, float]]], safety: dict[str, dict[str, str]], names: list[str]) -> None:
    columns = ("req/s", "spread", "p50 ms", "p99 ms", "CPU µs", "RSS MB", "ratio")
    print(f"\n{'case':<12}{'client':<11}" + "".join(f"{column:>9}" for column in columns))
    for case, rows in table.items():
        for name in names:
            row, ours = rows[name], rows["hip"]["rate"]
            print(
                f"{case:<12}{name:<11}{row['rate']:>9.0f}{row['spread']:>9.0%}{row['p50']:>9.3f}{row['p99']:>9.3f}"
                f"{row['cpu']:>9.0f}{row['rss']:>9.0f}{row['rate'] / ours:>9.2f}"
            )
    print(f"\n{'':<44}" + "".join(f"{name:>16}" for name in names))
    for question in next(iter(safety.values())):
        print(f"{question:<44}" + "".join(f"{safety[name][question]:>16}" for name in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 seconds instead of 2 minutes")
    parser.add_argument("--json", type=Path, help="write the result here, too")
    arguments = parser.parse_args()
    rounds, seconds = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory() as scratch:
        server, port = start_nginx(Path(scratch))
        candidates: list[Candidate] = []
        try:
            candidates += [Candidate(name, port) for name in CANDIDATES]
            table = measure(candidates, rounds, seconds)
            safety = {candidate.name: candidate.ask("safety") for candidate in candidates}
        finally:
            for candidate in candidates:
                candidate.close()
            server.terminate()
            server.wait()
    shape = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),  # about 2 is this benchmark itself; more is somebody else
        "python": platform.python_version(),
    }
    versions = {candidate.name: candidate.version for candidate in candidates}
    print(f"{time.strftime('%Y-%m-%d')}, {shape}, {versions}, {rounds} rounds of {seconds} s")
    show(table, safety, list(CANDIDATES))  # type: ignore[arg-type]
    if arguments.json:
        result = {"date": time.strftime("%Y-%m-%d"), **shape, "versions": versions, "speed": table, "safety": safety}
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
