"""A thread that looks at the writer: a write that hangs hangs the event loop, and then nothing else can tell."""

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger("hip.audit")


class Watchdog:
    """Says so in the log when a write does not return."""

    def __init__(self, hangs: Callable[[], bool], seconds: float) -> None:
        self._hangs = hangs
        self._seconds = seconds
        self._done = threading.Event()
        threading.Thread(target=self._watch, name="audit watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._done.set()

    def _watch(self) -> None:
        told = False
        while not self._done.wait(self._seconds):
            hangs = self._hangs()
            if hangs and not told:
                _log.critical("audit journal stuck: a write does not return; every request waits")
            told = hangs
