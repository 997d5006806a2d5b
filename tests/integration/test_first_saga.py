"""The how-to page on a first saga, command by command, in a directory of its own."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/first-saga.md").read_text(encoding="utf-8")


def test_the_page_can_be_followed_as_it_stands(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = [line.split("  #")[0].rstrip() for line in PAGE.split("```sh\n")[1].split("```")[0].splitlines()]
    pavane = [line.removeprefix("pavane ") for line in commands if line.startswith("pavane ")]

    def do(line: str) -> str:
        command = f'"{sys.executable}" -m pavane {line}'
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
        return done.stdout + done.stderr

    (running,) = [line.removesuffix("&").strip() for line in pavane if line.startswith("run ")]
    agents = subprocess.Popen(
        [sys.executable, "-m", "pavane", *running.split()], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert agents.stderr is not None
        assert "ready" in agents.stderr.readline()
        shown: dict[str, str] = {}
        for line in pavane:
            if line.startswith("sagas list"):
                states = wait_for_two_ends(do)
                assert states == {"o-1": "completed", "o-2": "compensated"}
            if not line.startswith("run "):
                shown[line] = do(line)
        assert "no unicorn is in stock" in shown["sagas show o-2"]
        assert re.search(r"undoes charge", shown["trace o-2"])
    finally:
        agents.send_signal(signal.SIGTERM)
        _, rest = agents.communicate(timeout=30)
    assert agents.returncode == 0, rest
    effects = sqlite3.connect(tmp_path / "shop-effects.db")
    standing = {what for (what,) in effects.execute("SELECT what FROM effects")}
    effects.close()
    assert standing == {"500 cents charged for o-1", "tea packed for o-1", "tea shipped for o-1"}


def wait_for_two_ends(do: Callable[[str], str]) -> dict[str, str]:
    """The states by subject, as soon as both sagas have ended."""
    until = time.monotonic() + 30
    while True:
        listed = json.loads(do("sagas list --json").splitlines()[0])
        states = {each["subject"]: each["state"] for each in listed}
        if len(states) == 2 and set(states.values()) <= {"completed", "compensated"}:
            return states
        assert time.monotonic() < until, states
