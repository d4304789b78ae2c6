"""The fault matrix: part, fault, what happens, and the test that shows it. `docs/operations.md` has it as a table.

python -m tests.faults.matrix    writes the table into the document
"""

from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
BEGIN, END = "<!-- fault matrix: python -m tests.faults.matrix -->", "<!-- end of the fault matrix -->"
FAULTS = ("down", "slow or hung", "wrong answers", "flushed or corrupt", "coming back")


@dataclass(frozen=True)
class Cell:
    part: str
    fault: str
    behaviour: str
    test: str  # file::function, under tests/


def _part(part: str, *cells: tuple[str, str]) -> list[Cell]:
    return [Cell(part, fault, *cell) for fault, cell in zip(FAULTS, cells, strict=True)]


MATRIX = [
    *_part(
        "upstream",
        (
            "502; after 5 in a row 503 with `Retry-After`, unasked, for 5 s; no budget is spent; `/readyz` warns",
            "faults/test_dependencies.py::test_upstream_down",
        ),
        ("504 at the upstream's `timeout`; counts as down", "faults/test_dependencies.py::test_upstream_breaks"),
        ("502, and no byte of it leaves; the connection is closed", "upstream/test_faults.py::test_fault"),
        (
            "a model that is gone is 404; the server's words stay here",
            "faults/test_dependencies.py::test_upstream_without_its_model",
        ),
        (
            "one request at a time tries; its answer opens the way for all",
            "faults/test_breaker.py::test_then_one_tries_for_all",
        ),
    ),
    *_part(
        "replica",
        (
            "what it had is 502, what could not be connected goes to another; then it is passed over",
            "faults/test_replicas.py::test_a_killed_replica_loses_what_was_in_flight_and_no_more",
        ),
        (
            "the others, with fewer requests under way, get the next ones",
            "faults/test_replicas.py::test_the_one_with_the_fewest_requests_under_way_is_asked",
        ),
        (
            "a health check that is not 2xx: passed over; all of them: 503",
            "faults/test_replicas.py::test_where_nobody_is_well_nobody_is_asked",
        ),
        (
            "no answer to what it was sent: 502, and nobody else is sent it; after 5 in a row passed over",
            "faults/test_replicas.py::test_a_request_that_was_written_is_not_repeated_and_one_that_was_not_is",
        ),
        (
            "asked again after two good checks",
            "faults/test_replicas.py::test_who_is_unwell_is_passed_over_and_comes_back",
        ),
    ),
    *_part(
        "key server",
        (
            "keys in hand serve for `max_staleness`; without any: 503, not ready",
            "faults/test_dependencies.py::test_key_server_down_at_the_start",
        ),
        (
            "a refresh makes nobody wait; a first fetch ends after 5 s: 503",
            "identity/test_key_ring.py::test_slow_server",
        ),
        ("changes nothing; shown in `/readyz`", "identity/test_key_ring.py::test_bad_later_answer"),
        ("rotated keys are fetched when a token names one", "identity/test_key_ring.py::test_rotation"),
        ("asked again after 10 s at the latest", "identity/test_key_ring.py::test_server_down_then_up"),
    ),
    *_part(
        "Valkey",
        ("503, nothing forwarded; not ready", "faults/test_dependencies.py::test_store_breaks"),
        ("503 within 0.5 s, then at once; tried again every second", "budget/test_valkey_ledger.py::test_hung"),
        (
            "503: a reply that is not our script's is no charge",
            "budget/test_valkey_ledger.py::test_an_odd_reply_is_not_a_charge",
        ),
        ("budgets begin anew, and so do the memories of proofs", "budget/test_valkey_ledger.py::test_flushed"),
        (
            "ready within a second; a restart without its data counts from zero",
            "budget/test_valkey_ledger.py::test_killed_and_started_again_empty",
        ),
    ),
    *_part(
        "revocations in Valkey",
        (
            "what was revoked stays so; after 5 s nobody is believed: 503, not ready, streams that run are cut",
            "workers/test_shared_revocations.py::test_a_store_that_is_away",
        ),
        (
            "the same: a look at the list ends after 0.5 s",
            "workers/test_shared_revocations.py::test_a_store_that_is_away",
        ),
        (
            "the lines that can be read count, `/readyz` warns; who starts then answers 503 until they are mended",
            "workers/test_shared_revocations.py::test_a_line_of_somebody_else",
        ),
        (
            "gives nothing back: whoever serves writes what it knows into it again",
            "faults/test_revocations_store.py::test_a_flushed_store_revokes_on",
        ),
        (
            "within a second callers are believed again, whoever is revoked is not, also where it has lost the list",
            "faults/test_revocations_store.py::test_a_store_that_was_killed_and_comes_back_empty_revokes_on",
        ),
    ),
    *_part(
        "query sequences in Valkey",
        ("503, as for budgets, which the same store refuses before", "faults/test_dependencies.py::test_store_breaks"),
        (
            "503 within 0.5 s",
            "workers/test_shared_sequences.py::test_a_store_that_is_away_refuses_and_comes_back",
        ),
        (
            "503: what is not our script's reply shows nothing",
            "workers/test_shared_sequences.py::test_a_reply_that_is_not_our_scripts_refuses",
        ),
        (
            "what callers asked before is forgotten, as after a restart without a store",
            "workers/test_shared_sequences.py::test_a_store_that_was_emptied_begins_anew",
        ),
        (
            "what was asked before counts again",
            "workers/test_shared_sequences.py::test_a_store_that_is_away_refuses_and_comes_back",
        ),
    ),
    *_part(
        "worker",
        (
            "what it had begun is lost, a decision without a completion each, and nothing else; another one starts",
            "workers/test_workers.py::test_a_killed_worker_loses_only_what_it_had_begun",
        ),
        (
            "silent for 15 s: its supervisor kills it and starts another",
            "workers/test_workers.py::test_a_worker_that_hangs_is_ended_and_started_again",
        ),
        (
            "a successor that does not start replaces nobody",
            "workers/test_workers.py::test_a_worker_that_does_not_start_replaces_nobody",
        ),
        (
            "no acknowledged record is lost; the next stream names the one that broke off",
            "audit/test_audit_kill.py::test_no_acknowledged_record_is_lost",
        ),
        (
            "`/readyz` warns until it serves again",
            "workers/test_workers.py::test_readyz_tells_of_a_worker_that_is_away",
        ),
    ),
    *_part(
        "journal disk",
        (
            "503, nothing forwarded, not ready; a new stream is tried every second",
            "audit/test_audit_journal.py::test_a_failed_write_refuses_until_a_new_stream_could_be_started",
        ),
        (
            "503 after 1 s; a write that hangs holds the worker, which its supervisor ends after 15 s",
            "audit/test_audit_journal.py::test_a_sync_that_hangs_refuses_and_shows",
        ),
        (
            "a failed sync is never repeated on the same file",
            "audit/test_audit_journal.py::test_a_failed_sync_is_never_repeated_on_the_same_file",
        ),
        (
            "a damaged anchor log stops the start; every change is found by `hip audit verify`",
            "audit/test_audit_journal.py::test_a_damaged_anchor_log_stops_the_start",
        ),
        (
            "a `gap` record says how long, and how many were refused",
            "audit/test_audit_journal.py::test_low_space_refuses_while_it_lasts",
        ),
    ),
    *_part(
        "OTLP collector",
        (
            "requests notice nothing; losses are counted and shown",
            "audit/test_audit_spans.py::test_a_collector_that_is_not_there_costs_the_request_nothing",
        ),
        (
            "a bounded queue; the newest are refused and counted",
            "audit/test_audit_spans.py::test_a_full_queue_refuses_the_newest_and_counts",
        ),
        ("counted as lost", "audit/test_audit_spans.py::test_what_a_collector_does_not_take_is_counted"),
        (
            "a batch that cannot be encoded is lost alone, and counted",
            "audit/test_audit_spans.py::test_a_batch_that_cannot_be_encoded_does_not_end_the_thread",
        ),
        ("asked again when it says so", "audit/test_audit_spans.py::test_a_collector_that_says_later_is_asked_again"),
    ),
    *_part(
        "policy directory",
        ("the policy before serves on; `/readyz` warns", "faults/test_dependencies.py::test_policy_breaks"),
        (
            "one that never rests is refused",
            "policy/test_watch.py::test_a_directory_that_never_rests_is_refused",
        ),
        ("rejected as a whole: log, metric, journal, `/readyz`", "faults/test_dependencies.py::test_policy_breaks"),
        (
            "two versions are never mixed",
            "policy/test_watch.py::test_a_swap_in_the_middle_of_reading_never_mixes_two_versions",
        ),
        ("seen within a second or two", "policy/test_watch.py::test_a_directory_that_comes_back_is_seen"),
    ),
    *_part(
        "certificate files",
        (
            "those before serve on; `/readyz` warns",
            "faults/test_certificates.py::test_a_bad_set_is_never_loaded_and_a_good_one_ends_it",
        ),
        (
            "read only when two looks agree: a pair between its halves is not judged",
            "faults/test_certificates.py::test_a_pair_between_its_halves_is_not_judged",
        ),
        (
            "a key of another certificate, a list of another CA: rejected",
            "faults/test_certificates.py::test_a_list_that_must_not_be_loaded",
        ),
        (
            "rejected: log, metric, journal, `/readyz`",
            "faults/test_certificates.py::test_a_bad_set_is_never_loaded_and_a_good_one_ends_it",
        ),
        (
            "loaded within two seconds; open connections go on",
            "faults/test_certificates.py::test_a_renewed_pair_serves_new_connections_and_keeps_the_open_ones",
        ),
    ),
    *_part(
        "clock",
        (
            "cannot be down: the kernel has it",
            "faults/test_dependencies.py::test_a_clock_that_steps_gives_no_budget_back",
        ),
        (
            "behind: tokens from the future are refused beyond the issuer's leeway",
            "identity/test_token.py::test_claim",
        ),
        (
            "a step starts a new journal segment, and raises no alarm",
            "audit/test_audit_journal.py::test_a_clock_that_steps_starts_a_new_segment_and_no_alarm",
        ),
        ("before or after a certificate's time: it is not loaded", "tls/test_files.py::test_not_valid_now"),
        (
            "budgets, breakers and deadlines follow the monotonic clock and notice nothing",
            "faults/test_dependencies.py::test_a_clock_that_steps_gives_no_budget_back",
        ),
    ),
]


def table() -> str:
    """The matrix as Markdown: a block a part."""
    lines = ["| part | fault | what happens | test |", "|---|---|---|---|"]
    lines += [f"| {cell.part} | {cell.fault} | {cell.behaviour} | `{cell.test.split('::')[1]}` |" for cell in MATRIX]
    return "\n".join(lines)


def document(text: str) -> str:
    """Return the document with the table of today in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(document(DOCUMENT.read_text()))
