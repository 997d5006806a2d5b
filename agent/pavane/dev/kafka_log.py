"""What a Kafka that failed has said: the errors, out of much else that it says before it is gone."""

import re

_LINES = 20
_ERROR = re.compile(r"\[[^]]*\] (ERROR|FATAL) |Exception")


def last_words(log: str) -> str:
    """The last errors in a log, with what is told of each; where there is none, its last lines.

    Where in Kafka's source an error was thrown is left to the log.
    """
    lines = log.strip().splitlines()
    errors: list[str] = []
    is_error = False
    for line in lines:
        if line.startswith("[") or not is_error:
            is_error = _ERROR.match(line) is not None
        if is_error and not line.startswith("\tat "):
            errors.append(line)
    return "\n".join((errors or lines)[-_LINES:])
