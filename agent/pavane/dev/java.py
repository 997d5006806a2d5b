"""Java and Maven: found on this machine, or a message that says what to install."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

from pavane_events.errors import Problem

OLDEST_JAVA = 17
"""The oldest Java that Kafka 4 servers run on."""

_INSTALL_JAVA = "on Debian and Ubuntu `apt-get install openjdk-17-jre-headless`, on macOS `brew install openjdk@17`"
_INSTALL_MAVEN = "on Debian and Ubuntu `apt-get install maven`, on macOS `brew install maven`"
_PROPERTY = re.compile(r"^\s*java\.(specification\.version|version) = (\S+)", re.MULTILINE)
_ASK_S = 30.0


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that Kafka runs on."""

    program: str
    version: str


def find_java() -> Java | Problem:
    """``$JAVA_HOME/bin/java``, else ``java`` on the PATH; a problem where there is none, or it is too old."""
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=os.path.join(home, "bin") if home else None)
    if program is None:
        where = f"JAVA_HOME is {home}, and there is no bin/java in it" if home else "there is no java on the PATH"
        return Problem("java", "kafka.no-java", f"{where}; Kafka needs Java {OLDEST_JAVA} or newer: {_INSTALL_JAVA}")
    return _examine(program)


def find_maven() -> str | Problem:
    """``mvn`` on the PATH. It is needed once, to fetch Kafka."""
    program = shutil.which("mvn")
    if program is None:
        message = f"there is no mvn on the PATH; Maven fetches Kafka, once: {_INSTALL_MAVEN}"
        return Problem("maven", "kafka.no-maven", message)
    return program


@cache
def _examine(program: str) -> Java | Problem:
    command = [program, "-XshowSettings:properties", "-version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Problem("java", "kafka.no-java", f"{program} does not run ({error}); install Java: {_INSTALL_JAVA}")
    told = dict(_PROPERTY.findall(done.stderr))
    feature = told.get("specification.version", "").removeprefix("1.")  # Java 8 called itself 1.8
    if not feature.isdecimal():
        said = (done.stderr or done.stdout).strip().partition("\n")[0]
        return Problem("java", "kafka.no-java", f"{program} does not say its version ({said}); install Java: {_INSTALL_JAVA}")
    if int(feature) < OLDEST_JAVA:
        message = f"{program} is Java {feature}, and Kafka needs Java {OLDEST_JAVA} or newer: {_INSTALL_JAVA}"
        return Problem("java", "kafka.old-java", message)
    return Java(program, told.get("version", feature))
