"""A scanner's opinion of our TLS: sslyze, in an environment of its own, against the real listener."""

import asyncio
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from proxy.adapters.mint import mint
from proxy.adapters.tls import ClientCertificates, Profile, ServerTls, TlsFiles
from proxy.listener import Limits, bind, serve

SSLYZE = Path(__file__).parents[2] / ".venv-sslyze" / "bin" / "sslyze"

VERSIONS = {
    Profile.MODERN: {"tls_1_3"},
    Profile.INTERMEDIATE: {"tls_1_2", "tls_1_3"},
    Profile.FIPS: {"tls_1_2", "tls_1_3"},
}
MOZILLA = {Profile.MODERN: "modern", Profile.INTERMEDIATE: "intermediate"}
# What remains of Mozilla's rules: Python cannot leave P-521 and X448 out; both are strong.
NOT_OURS_TO_MEND = {"tls_curves"}
STRONG_CURVES = {"X25519", "X448", "secp256r1", "secp384r1", "secp521r1"}


async def nothing_here(scope: Any, receive: Any, send: Any) -> None:
    """The scanner asks once, to see whether it may without a certificate."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def scan(directory: Path, profile: Profile) -> tuple[dict[str, Any], str]:
    """Return what sslyze found, by the name of its scan, and what it printed."""
    if not SSLYZE.exists():
        reason = f"no {SSLYZE}: `make .venv-sslyze/.ready` installs requirements/sslyze.txt"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    minted = mint(directory / "certs", ["localhost", "127.0.0.1"], [])
    files = TlsFiles(minted.server.certificate, minted.server.key)
    tls = ServerTls(files, ClientCertificates.OFF, profile, time.time())
    found = directory / "found.json"
    listening = bind("127.0.0.1", 0)
    async with serve(
        nothing_here, listening=listening, limits=Limits(), drain_seconds=0.0, context=tls.context
    ) as door:
        process = await asyncio.create_subprocess_exec(
            str(SSLYZE),
            f"--mozilla_config={MOZILLA.get(profile, 'intermediate')}",
            f"--certinfo_ca_file={minted.ca.certificate}",
            f"--json_out={found}",
            "--early_data",
            "--resum",
            f"localhost:{door.port}",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
    (result,) = json.loads(found.read_text())["server_scan_results"]
    assert result["connectivity_status"] == "COMPLETED", printed.decode()
    scans = {name: each["result"] for name, each in result["scan_result"].items() if each["status"] == "COMPLETED"}
    return scans, printed.decode()


@pytest.mark.parametrize("profile", list(Profile), ids=str)
async def test_a_scanner_finds_what_the_profile_says(profile: Profile, tmp_path: Path) -> None:
    """NIST SP 800-52r2: versions, suites with forward secrecy and AEAD, and nothing of what has been broken."""
    scans, printed = await scan(tmp_path, profile)
    spoken = {name.removesuffix("_cipher_suites"): found for name, found in scans.items() if "cipher_suites" in name}
    assert {name for name, found in spoken.items() if found["is_tls_version_supported"]} == VERSIONS[profile]
    suites = {each["cipher_suite"]["name"] for found in spoken.values() for each in found["accepted_cipher_suites"]}
    assert suites
    for suite in suites:
        assert suite.endswith(("GCM_SHA256", "GCM_SHA384", "POLY1305_SHA256"))
        assert "ECDHE" in suite or suite.startswith(("TLS_AES", "TLS_CHACHA20")), "forward secrecy"
    assert any("CHACHA20" in suite for suite in suites) == (profile is not Profile.FIPS)
    assert {curve["name"] for curve in scans["elliptic_curves"]["supported_curves"]} <= STRONG_CURVES
    assert scans["tls_compression"] == {"supports_compression": False}
    assert scans["tls_1_3_early_data"] == {"supports_early_data": False}
    assert not scans["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"]
    assert not scans["heartbleed"]["is_vulnerable_to_heartbleed"]
    assert scans["robot"]["robot_result"] == "NOT_VULNERABLE_RSA_NOT_SUPPORTED"
    if profile is not Profile.MODERN:  # TLS 1.3 has no renegotiation and no choice of master secret
        renegotiation = scans["session_renegotiation"]
        assert renegotiation["supports_secure_renegotiation"]
        assert renegotiation["client_renegotiations_success_count"] == 0
        assert scans["tls_extended_master_secret"] == {"supports_ems_extension": True}
        resumption = scans["session_resumption"]
        assert resumption["session_id_resumption_result"] == "NOT_SUPPORTED", resumption
        assert resumption["tls_ticket_resumption_result"] == "NOT_SUPPORTED", resumption
    if profile in MOZILLA:
        verdict = printed.partition("Checking results against Mozilla")[2]
        assert verdict
        faults = {line.strip(" *").partition(":")[0] for line in verdict.splitlines() if line.strip().startswith("* ")}
        assert faults <= NOT_OURS_TO_MEND, verdict
