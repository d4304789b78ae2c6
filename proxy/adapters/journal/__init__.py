"""The audit journal on a disk: one stream of chained, signed lines for each worker process."""

from proxy.adapters.journal.disk import Disk
from proxy.adapters.journal.keys import Keys, ensure_keys, read_recipient
from proxy.adapters.journal.retention import Retention
from proxy.adapters.journal.status import Durability, Limits, State, Status
from proxy.adapters.journal.writer import Journal

__all__ = [
    "Disk",
    "Durability",
    "Journal",
    "Keys",
    "Limits",
    "Retention",
    "State",
    "Status",
    "ensure_keys",
    "read_recipient",
]
