"""Look every locked dependency up in the advisory database, and say honestly when that was not possible.

pip-audit prints "No known vulnerabilities found" and exits 0 even when it could look nothing up. Here:
exit 0  every dependency was looked up, none has a known vulnerability
exit 1  a vulnerability, or some dependencies could not be looked up
exit 3  nothing at all could be looked up (no advisory service within reach): the caller decides what that means
"""

import json
import subprocess
import sys
from pathlib import Path


def main(requirements: str) -> int:
    """Audit one hashed requirements file."""
    command = [
        str(Path(sys.executable).with_name("pip-audit")),
        *("--requirement", requirements, "--require-hashes", "--disable-pip"),
        *("--format", "json", "--progress-spinner", "off"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own tool
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"dependency audit: CANNOT TELL, pip-audit gave no report\n{done.stderr[-2000:]}")
        return 3
    vulnerable = [entry for entry in found if entry.get("vulns")]
    skipped = [entry for entry in found if entry.get("skip_reason")]
    for entry in vulnerable:
        print(f"{entry['name']} {entry['version']}: {', '.join(fault['id'] for fault in entry['vulns'])}")
    looked_up = len(found) - len(skipped)
    counts = f"{looked_up} of {len(found)} looked up, {len(vulnerable)} vulnerable, {len(skipped)} skipped"
    print(f"dependency audit: {counts}")
    if vulnerable or (skipped and looked_up):
        return 1
    return 0 if looked_up else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
