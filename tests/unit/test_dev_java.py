"""Java and Maven are found, or it is said what to install."""

from pathlib import Path

import pytest

from pavane.dev.java import Java, find_java, find_maven
from pavane_events.errors import Problem


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path


def a_java(folder: Path, *lines: str, code: int = 0) -> Path:
    """A program that says what Java says of itself, on standard error as Java does."""
    folder.mkdir(exist_ok=True)
    program = folder / "java"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}' >&2\n" for line in lines) + f"exit {code}\n")
    program.chmod(0o755)
    return program


def test_a_java_that_is_new_enough_is_found_with_its_version(programs: Path) -> None:
    program = a_java(programs, "    java.specification.version = 21", "    java.version = 21.0.4")
    assert find_java() == Java(str(program), "21.0.4")


def test_java_home_comes_before_the_path(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_java(programs, "    java.specification.version = 21")
    (programs / "home").mkdir()
    mine = a_java(programs / "home" / "bin", "    java.specification.version = 17", "    java.version = 17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(programs / "home"))
    assert find_java() == Java(str(mine), "17.0.1")


def test_a_java_home_without_java_is_named(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_java(programs, "    java.specification.version = 21")
    monkeypatch.setenv("JAVA_HOME", str(programs / "nowhere"))
    assert problem_of(find_java()).message.startswith(f"JAVA_HOME is {programs}/nowhere, and there is no bin/java in it")


def test_no_java_is_told_with_what_to_install(programs: Path) -> None:
    problem = problem_of(find_java())
    assert problem.code == "kafka.no-java"
    assert "apt-get install openjdk-17-jre-headless" in problem.message


@pytest.mark.parametrize(("told", "meant"), [("11", "Java 11"), ("1.8", "Java 8")])
def test_a_java_that_is_too_old_is_told(programs: Path, told: str, meant: str) -> None:
    a_java(programs, f"    java.specification.version = {told}")
    problem = problem_of(find_java())
    assert problem.code == "kafka.old-java"
    assert f"is {meant}, and Kafka needs Java 17 or newer" in problem.message


def test_a_program_that_only_calls_itself_java_is_told(programs: Path) -> None:
    """As macOS has one, which asks to install Java."""
    a_java(programs, "Unable to locate a Java Runtime.", code=1)
    assert "does not say its version (Unable to locate a Java Runtime.)" in problem_of(find_java()).message


def test_no_maven_is_told_with_what_to_install(programs: Path) -> None:
    assert "apt-get install maven" in problem_of(find_maven()).message


def problem_of(found: Java | str | Problem) -> Problem:
    assert isinstance(found, Problem)
    return found
