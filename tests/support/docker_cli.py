"""Docker's own command line: it says without ado whether there is a daemon, and what it has."""

import subprocess
from subprocess import CompletedProcess

_ANSWER_S = 10.0


def docker(*arguments: str, timeout_s: float = _ANSWER_S) -> "CompletedProcess[str]":
    """What ``docker`` says; exit code 127 where there is none, 124 where it does not answer in time."""
    command = ["docker", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        return CompletedProcess(command, 127, "", "there is no docker on the PATH")
    except subprocess.TimeoutExpired:
        return CompletedProcess(command, 124, "", f"no answer within {timeout_s:.0f} s")


def last_line(said: "CompletedProcess[str]") -> str:
    """What it said at the end, which is where it says what is wrong."""
    return (said.stderr or said.stdout).strip().rpartition("\n")[2] or f"exit code {said.returncode}"


def daemon_problem() -> str | None:
    """Why no container can run here, or None. To be asked before a client library is: those leave sockets open."""
    answer = docker("version", "--format", "{{.Server.Version}}")
    return None if answer.returncode == 0 else f"no Docker daemon answers ({last_line(answer)})"
