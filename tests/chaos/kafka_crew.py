"""Processes of the Kafka chaos suite: started, killed, stopped and continued by their own pid, and listened to."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos.kafka_order import Order

TESTS = Path(__file__).parents[1]
_PATH = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
START_UP_S = 60.0
STOP_S = 30.0


@dataclass(slots=True)
class Worker:
    """One process, what it has said, and which lanes it holds as far as it knows."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    lines: list[str] = field(default_factory=list[str])
    held: set[int] = field(default_factory=set[int])
    stopped: bool = False
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    async def kill(self) -> None:
        """``kill -9``. AssertionError where it had ended by itself before."""
        self.check()
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    def stop_clock(self) -> None:
        """SIGSTOP: it does not know that time goes by."""
        self.check()
        self.stopped = True
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self.stopped = False
        self.process.send_signal(signal.SIGCONT)

    async def leave(self) -> None:
        """SIGTERM: it leaves its group gracefully. AssertionError where it does not."""
        self.check()
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_S):
            code = await self.process.wait()
        assert code == 0, self.report()

    async def said(self, line: str, patience_s: float = START_UP_S) -> None:
        """Wait until it has said a line that begins so."""
        await self.until(lambda: any(each.startswith(line) for each in self.lines), patience_s, f"it did not say {line!r}")

    async def until(self, is_so: Callable[[], bool], patience_s: float, problem: str) -> None:
        """Wait until something that it says makes this true."""
        try:
            async with asyncio.timeout(patience_s), self._news:
                await self._news.wait_for(lambda: is_so() or not self.alive)
        except TimeoutError:
            raise AssertionError(f"{problem}; {self.report()}") from None
        assert is_so(), f"{problem}; {self.report()}"

    def check(self) -> None:
        """AssertionError where it has ended by itself."""
        assert self.alive, self.report()

    def report(self) -> str:
        """Who it is, and what it said at last."""
        logged = self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""
        return f"{self.name} (exit code {self.process.returncode}) said {self.lines[-20:]}, and logged:\n{logged}"

    def peak_rss_mb(self) -> float:
        """The most memory that it has held so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024

    async def listen(self) -> None:
        """Take in what it says until it is gone."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            word, _, rest = line.decode().strip().partition(" ")
            if word == "granted":
                self.held.add(int(rest))
            elif word == "lost":
                self.held.discard(int(rest))
            async with self._news:
                self.lines.append(f"{word} {rest}")
                self._news.notify_all()
        await self.process.wait()
        self.held.clear()
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def a_process(name: str, log: Path, *command: str, environment: dict[str, str] | None = None) -> AsyncGenerator[Worker]:
    """A Python process with the tests on its path, dead at the end whatever happens."""
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=file,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_PATH), **(environment or {})},
        )
    worker = Worker(name, process, log)
    listening = asyncio.create_task(worker.listen())
    try:
        yield worker
    finally:
        if worker.alive:
            process.send_signal(signal.SIGKILL)
        await listening


@asynccontextmanager
async def a_worker(order: Order, log: Path, *, name: str = "worker", program: str = "kafka_worker") -> AsyncGenerator[Worker]:
    """A worker that has joined its group."""
    async with a_process(name, log, "-m", f"chaos.{program}", order.to_json()) as worker:
        await worker.said("ready")
        yield worker
