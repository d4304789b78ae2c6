"""Record what the real servers answer: `python -m tests.servers.record [SERVER…]`, all four by default.

Places of this machine are replaced, in bodies and their Content-Length, and the date is left out; nothing else is
touched.
"""

import json
import sys
import tempfile
from pathlib import Path

from tests.servers import launch
from tests.servers.asking import RECORDED, Answer, Recorded, ask
from tests.servers.questions import QUESTIONS
from tests.servers.running import PYTHON, ROOT, run_once

LAUNCH = {
    "mlserver": launch.mlserver,
    "triton": launch.triton,
    "mlflow": launch.mlflow,
    "litserve": launch.litserve,
}


def record(name: str) -> None:
    """Ask one server everything and write its file."""
    base = run_once([PYTHON, "-c", "import sys; print(sys.base_prefix)"]).strip()
    with tempfile.TemporaryDirectory(prefix=f"hip-{name}-") as directory:
        places = {directory: f"/srv/{name}", str(ROOT): "/srv/hip", base: "/usr"}
        with LAUNCH[name](Path(directory)) as server:
            entries = {
                title: Recorded(question, without_places(ask(server.url, question), places)).to_json()
                for title, question in QUESTIONS[name].items()
            }
    RECORDED.mkdir(exist_ok=True)
    (RECORDED / f"{name}.json").write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    print(f"{name}: {len(entries)} answers")


def without_places(answer: Answer, places: dict[str, str]) -> Answer:
    """Return the answer as a machine with other directories would have given it."""
    body = answer.body
    for place, other in places.items():
        body = body.replace(place.encode(), other.encode())
    lengths = {"content-length": str(len(body))}
    headers = tuple(
        (title, lengths.get(title.lower(), value)) for title, value in answer.headers if title.lower() != "date"
    )
    return Answer(answer.status, headers, body)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or LAUNCH:
        record(chosen)
