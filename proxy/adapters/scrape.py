"""A kept page of our metrics, read back for the auditor: the numbers that the journal can be compared with."""

import math
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from proxy.audit.reconcile import Scrape

MAX_PAGE = 16 << 20  # bytes


class ScrapeError(ValueError):
    """A page that is not ours, or no page of metrics at all."""


def read_scrape(name: str, data: bytes) -> Scrape:
    """Return what the page says, of all workers together; raise ScrapeError."""
    try:
        families = list(text_string_to_metric_families(data.decode("utf-8")))
        samples = [sample for family in families for sample in family.samples]
    except (ValueError, KeyError, IndexError) as error:
        raise ScrapeError("no page of metrics") from error
    if not any(sample.name == "hip_journal_records_total" for sample in samples):
        raise ScrapeError("no metrics of hip: hip_journal_records_total is missing")
    return Scrape(
        name=name,
        positions={
            sample.labels["stream"]: _count(sample.value)
            for sample in samples
            if sample.name == "hip_journal_sequence" and "stream" in sample.labels
        },
        records=_sum(samples, "hip_journal_records_total"),
        forwarded=_sum(samples, "hip_upstream_seconds_count"),
        refused=_sum(samples, "hip_refused_messages_total"),
        failures=_sum(samples, "hip_journal_failures_total"),
        in_flight=_sum(samples, "hip_requests_in_flight"),
        spans_lost=_sum(samples, "hip_spans_lost"),
    )


def _sum(samples: Iterable[Sample], name: str) -> int:
    return _count(sum(sample.value for sample in samples if sample.name == name))


def _count(value: float) -> int:
    if not math.isfinite(value):
        raise ScrapeError("a count that is no number")
    return int(value)
