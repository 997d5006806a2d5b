"""Kafka's jars: fetched by Maven once, by the ``kafka-pom.xml`` beside this file, and its tools run out of them."""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from xml.etree import ElementTree

from pavane.dev.cache import cache_folder, locked
from pavane.dev.java import Java, find_java, find_maven
from pavane_events.errors import ConfigurationError, PavaneError, Problem

Tell = Callable[[str], None]
"""Is told what takes longer than a moment, in a few words."""

_POM = files("pavane.dev") / "kafka-pom.xml"
_NAMESPACE = "{http://maven.apache.org/POM/4.0.0}"
_COMPLETE = ".complete"
_FETCH_S = 900.0
_LAST_LINES = 20


class KafkaFailed(PavaneError):
    """Kafka, or Maven while it fetched Kafka, did not do what was asked. The message ends with its log's last lines."""

    code = "kafka.failed"


def quiet(_message: str) -> None:
    """Tell nobody."""


@cache
def kafka_version() -> str:
    """The version that the pom names, the only place that does."""
    version = ElementTree.fromstring(_POM.read_text("utf-8")).findtext(f"{_NAMESPACE}properties/{_NAMESPACE}kafka.version")
    assert version is not None, "the pom names no version of Kafka"
    return version


def kafka_folder() -> Path:
    """Where this version of Kafka is kept: ``libs`` and an archive of loaded classes."""
    return cache_folder() / f"kafka-{kafka_version()}"


def problems_here() -> list[Problem]:
    """What stands in the way of running Kafka here: no Java, an old one, no Maven while the jars are not there yet."""
    found: list[Java | str | Problem] = [find_java()]
    if not _are_complete(kafka_folder() / "libs"):
        found.append(find_maven())
    return [each for each in found if isinstance(each, Problem)]


def java_here() -> Java:
    """The Java that runs Kafka. Raises :class:`ConfigurationError`, which says what to install."""
    java = find_java()
    if isinstance(java, Problem):
        raise ConfigurationError("Kafka cannot be run here", [java])
    return java


def kafka_jars(tell: Tell = quiet) -> Path:
    """The folder of jars, fetched first where it is not there: 45 MB, once per version.

    Several processes may ask at once: one fetches, the others wait. Raises :class:`ConfigurationError` where there is
    no Maven, :class:`KafkaFailed` where it fails; nothing half-fetched is taken for whole.
    """
    libs = kafka_folder() / "libs"
    if _are_complete(libs):
        return libs
    with locked(kafka_folder() / "lock", timeout_s=_FETCH_S):
        if not _are_complete(libs):
            _fetch(libs, tell)
    return libs


def run_kafka_tool(
    main_class: str, *arguments: str, stdin: str = "", timeout_s: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    """Run a command line tool of Kafka's to its end, as ``org.apache.kafka.tools.ConsoleProducer``.

    Returns what it said and its exit code, whatever that is. Raises :class:`subprocess.TimeoutExpired` where it does
    not end (it is killed then), :class:`ConfigurationError` where Java or Maven is missing.
    """
    command = [*java_command(java_here(), kafka_jars(), tool=True), main_class, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)


def java_command(java: Java, libs: Path, *, tool: bool, archive: str | None = None) -> Sequence[str]:
    """The beginning of a command that runs a class of Kafka's. ``tool``: it is short-lived, and small.

    ``archive``: an option about an archive of loaded classes, else the one that is there: half the time of a start.
    """
    shared = class_archive(java)
    options = ["-XX:TieredStopAtLevel=1", "-Xmx256m"] if tool else []
    if archive is None and shared.exists():
        archive = f"-XX:SharedArchiveFile={shared}"
    return [java.program, *options, *([archive] if archive else []), "-Xshare:auto", "-Xlog:disable", "-cp", f"{libs}/*"]


def class_archive(java: Java) -> Path:
    """Where the archive of Kafka's loaded classes is kept: it fits one version of Java only."""
    return kafka_folder() / f"classes-{java.version}.jsa"


def _are_complete(libs: Path) -> bool:
    return (libs / _COMPLETE).exists()


def _fetch(libs: Path, tell: Tell) -> None:
    maven = find_maven()
    problems = [each for each in (find_java(), maven) if isinstance(each, Problem)]
    if problems or isinstance(maven, Problem):
        raise ConfigurationError("Kafka cannot be fetched here", problems)
    tell(f"fetching Apache Kafka {kafka_version()} with Maven (45 MB, once) ...")
    partial = libs.with_name("libs.partial")
    for folder in (partial, libs):  # what an interrupted fetch left behind
        shutil.rmtree(folder, ignore_errors=True)
    with as_file(_POM) as pom:
        command = [maven, "-q", "-B", "-ntp", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_S, check=False)
        except subprocess.TimeoutExpired:
            raise KafkaFailed(f"Maven did not fetch Kafka within {_FETCH_S:.0f} s") from None
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_LAST_LINES:])
        raise KafkaFailed(f"Maven could not fetch Kafka; is Maven Central, or your mirror of it, reachable?\n{said}")
    (partial / _COMPLETE).touch()
    partial.rename(libs)
