"""The audit journal on a disk: one stream of chained, signed lines for each worker process."""

from proxy.adapters.journal.disk import Disk
from proxy.adapters.journal.journal import Journal
from proxy.adapters.journal.keys import Keys, ensure_keys, read_recipient
from proxy.adapters.journal.retention import Retention
from proxy.adapters.journal.second_place import second_place
from proxy.adapters.journal.status import Durability, Failure, Limits, State, Status

__all__ = [
    "Disk",
    "Durability",
    "Failure",
    "Journal",
    "Keys",
    "Limits",
    "Retention",
    "State",
    "Status",
    "ensure_keys",
    "read_recipient",
    "second_place",
]
