"""Exports: read by the official classes and a real SQL engine, inert in a spreadsheet, closed to the file system."""

import asyncio
import base64
import csv
import json
import stat
from pathlib import Path

import duckdb
import jsonschema
import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from stories import PSEUDONYMS, Place, exchange, place, plain_decision, principal, serve
from typer.testing import CliRunner

from proxy.adapters.exports import guarded
from proxy.audit.columns import VIEWS, line_columns
from proxy.audit.describe import completion, decision
from proxy.cli.audit import audit_app
from proxy.record import PolicyChange

SCHEMA = json.loads(Path(__file__).with_name("ocsf_api_activity.schema.json").read_text())


async def make(tmp_path: Path) -> Place:
    where = place(tmp_path)
    journal = await where.open()
    await serve(journal, 4, refused=2)
    for subject in ("=cmd|' /C calc'!A0", "bob"):
        story = exchange(principal=principal(subject=subject))
        await journal.append(decision(story, PSEUDONYMS))
        await journal.append(completion(story, PSEUDONYMS))
    await journal.append(plain_decision("f" * 32, "deny", model="=1+1", detail="@SUM(A1)", status=403, trace=""))
    await journal.append(plain_decision("e" * 32))  # without its completion
    await journal.append(PolicyChange(effect="loaded", policy="n" * 64, previous="p" * 64))
    await journal.close()
    return where


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return asyncio.run(make(tmp_path_factory.mktemp("exports")))


def run(where: Place, *arguments: str) -> tuple[int, str, str]:
    command = [arguments[0], str(where.directory), *arguments[1:], "--public-key", str(where.auditor)]
    result = CliRunner().invoke(audit_app, command, env={"COLUMNS": "300"})
    return result.exit_code, result.stdout, result.stderr


def export(where: Place, kind: str, output: Path, *more: str) -> Path:
    code, _, error = run(where, "export", "--format", kind, "-o", str(output), *more)
    assert code == 0, error
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    return output


def test_otlp_lines_are_read_by_the_official_classes(where: Place, tmp_path: Path) -> None:
    names, traces = [], set()
    for line in export(where, "otlp", tmp_path / "spans.jsonl").read_text().splitlines():
        request = json.loads(line)
        for span in request["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            traces.add(span["traceId"])
            for key in ("traceId", "spanId", "parentSpanId"):
                if key in span:
                    span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
        message = ParseDict(request, ExportTraceServiceRequest())
        names += [span.name for span in message.resource_spans[0].scope_spans[0].spans]
    assert len(traces) == 10 - 1  # one decision has no trace
    assert names.count("POST oip-v2/infer") == 2


def test_ocsf_lines_hold_to_the_schema(where: Place, tmp_path: Path) -> None:
    events = [json.loads(line) for line in export(where, "ocsf", tmp_path / "ocsf.jsonl").read_text().splitlines()]
    for event in events:
        jsonschema.validate(event, SCHEMA)
    assert len(events) == 10
    assert sorted(event["action_id"] for event in events) == [1] * 7 + [2] * 3
    assert {event["metadata"]["correlation_uid"] for event in events} >= {"e" * 32, "f" * 32}


def test_parquet_is_read_by_another_program(where: Place, tmp_path: Path) -> None:
    path = export(where, "parquet", tmp_path / "requests.parquet")
    rows = duckdb.sql(f"SELECT effect, completed, count(*) FROM '{path}' GROUP BY ALL ORDER BY ALL").fetchall()
    assert rows == [("allow", False, 1), ("allow", True, 6), ("deny", False, 3)]


def test_no_cell_of_a_csv_is_a_formula(where: Place, tmp_path: Path) -> None:
    with export(where, "csv", tmp_path / "requests.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "@", "+", "\t"))]
    assert {row["model"] for row in rows} >= {"'=1+1"}


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1"])
def test_every_way_to_begin_a_formula_is_guarded(text: str) -> None:
    cell = guarded(text)
    assert isinstance(cell, str)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert guarded(-1) == -1


def test_a_query_answers_with_defaults_filled_in(where: Place) -> None:
    sql = (
        "SELECT obligations_label_only, actor_bound, answer_bytes, completed FROM requests WHERE actor_issuer = 'corp'"
    )
    code, text, _ = run(where, "query", sql, "--json")
    assert code == 0
    assert [json.loads(line) for line in text.splitlines()] == [
        {"obligations_label_only": False, "actor_bound": False, "answer_bytes": None, "completed": True}
    ] * 2
    assert "reason" in run(where, "query", "SELECT reason, count(*) n FROM refusals GROUP BY 1")[1]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_answers(where: Place, view: str) -> None:
    code, text, error = run(where, "query", f"SELECT count(*) AS n FROM {view}", "--json")
    assert code == 0, error
    assert json.loads(text)["n"] > 0


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY refusals TO '/tmp/hip-stolen.csv'",
        "ATTACH '/tmp/hip-stolen.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM 'http://127.0.0.1:9/x.csv'",
        "nonsense",
    ],
)
def test_a_query_reaches_nothing_but_the_journal(where: Place, sql: str) -> None:
    code, _, error = run(where, "query", sql)
    assert code == 2
    assert error.strip()
    assert not Path("/tmp/hip-stolen.csv").exists()


def test_a_tampered_journal_hands_out_what_was_found_in_its_place_and_says_so(where: Place, tmp_path: Path) -> None:
    copy = Place(tmp_path / "audit", where.keys)
    copy.directory.mkdir()
    for path in where.directory.glob("*.jsonl"):
        (copy.directory / path.name).write_bytes(path.read_bytes().replace(b'"=1+1"', b'"=1+2"'))
    code, text, error = run(copy, "query", "SELECT count(*) AS n FROM requests WHERE model = '=1+2'", "--json")
    assert (code, json.loads(text)["n"], "TAMPERED" in error) == (1, 0, True)


def test_no_field_means_two_things() -> None:
    """A column that two events use with two types would be no column."""
    assert "JSON" not in line_columns().values()


def test_a_view_goes_with_tables_only(where: Place, tmp_path: Path) -> None:
    assert run(where, "export", "--format", "ocsf", "--view", "refusals", "-o", str(tmp_path / "x"))[0] == 2
