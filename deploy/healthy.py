"""The health check of a container: exits with 0 where the process in it says that it is ready, else with 1 and why.

Standard library only, and little of it: it is started every few seconds in every container.
"""

import os
import socket
import sys

_ANSWER_S = 4.0


def main() -> int:
    """Ask ``/ready`` as any orchestrator does."""
    port = int(os.environ.get("PAVANE_HEALTH_PORT", "8080"))
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_S) as connection:
            connection.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
            while block := connection.recv(65_536):
                answer += block
    except OSError as error:
        print(f"nobody answers at port {port}: {error}")
        return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    print(body.decode(errors="replace").strip()[:2_000])
    return 0 if head.split(b" ", 2)[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
