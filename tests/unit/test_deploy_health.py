"""The container's health check says what the process says of itself, and that nobody answers where nobody does."""

import asyncio
import os
import sys
from pathlib import Path

from pavane.dev.ports import free_block
from pavane.health import Board, serving

HEALTHY = Path(__file__).parents[2] / "deploy/healthy.py"


async def checked(port: int) -> tuple[int, str]:
    """Exit code and output of the check, as Docker runs it."""
    environment = {**os.environ, "PAVANE_HEALTH_PORT": str(port)}
    check = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(HEALTHY), env=environment, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(check.communicate(), 30.0)
    assert check.returncode is not None
    return check.returncode, said.decode()


def test_it_is_well_while_the_process_is_ready_and_says_why_when_it_is_not() -> None:
    port = free_block(1)

    async def all_of_it() -> None:
        board = Board()
        with serving(board, port):
            code, said = await checked(port)
            assert (code, '"why": "starting"' in said) == (1, True)
            board.joined(None)
            code, said = await checked(port)
            assert (code, '"ready": true' in said) == (0, True)
            board.waiting("no broker")
            code, said = await checked(port)
            assert (code, "no broker" in said) == (1, True)
        code, said = await checked(port)
        assert (code, "nobody answers" in said) == (1, True)

    asyncio.run(all_of_it())
