"""A syslog server that others wrote (hat-syslog), in the servers' environment: prints every message it could read.

python syslog_receiver.py tls://127.0.0.1:PORT PEM_FILE_WITH_CERTIFICATE_AND_KEY | tcp://127.0.0.1:PORT
"""

import asyncio
import json
import sys
from pathlib import Path

from hat.syslog.server.syslog import create_syslog_server


async def main(address: str, pem: Path | None) -> None:
    def take(message) -> None:
        fields = {
            "facility": message.facility.name,
            "severity": message.severity.name,
            "app": message.app_name,
            "id": message.msgid,
            "text": message.msg,
        }
        print(json.dumps(fields), flush=True)

    server = await create_syslog_server(address, take, pem)
    print("ready", flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None))
