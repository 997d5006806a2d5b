"""Builds Jaeger from source through the Go module proxy, once per cache folder: for machines without Docker."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from pavane.dev.cache import cache_folder, locked
from pavane_events.errors import ConfigurationError, Problem

VERSION = "2.13.0"
_MODULE = "github.com/jaegertracing/jaeger"
_MODULE_VERSION = "v1.76.0"
"""The last tag that the module proxy has; the same commit as tag v2.13.0."""
_MODULE_SUM = "h1:sWCOOF1dr+NL0PLil7mFo3BqqQL8k4WiM7aguFbc14g="
_COMMAND = f"{_MODULE}/cmd/jaeger"
_GO_FILE_HEAD = "module pavane.invalid/jaeger\n\ngo 1.25.0\n\n"
_GO_VERSION = (1, 25)
_REPORT_EVERY_S = 5.0
_BUILD_S = 1_800.0
_LAST_LINES = 20

Progress = Callable[[str], None]
"""Is told what the build is at, in a few words, every few seconds."""


def binary_path() -> Path:
    """Where the binary is, or will be, in the cache folder."""
    return cache_folder() / "jaeger" / _MODULE_VERSION / "jaeger"


def jaeger_binary(progress: Progress) -> Path:
    """The binary in the cache folder, built first where it is not there: some minutes, two cores, Go >= 1.25.

    Several processes may ask at once: one builds, the others wait for it. The source is the module of one version
    with one checksum, its dependencies those of its own ``go.sum``. Raises :class:`ConfigurationError` where there is
    no Go, or the build fails; nothing half-built is left behind.
    """
    binary = binary_path()
    home = binary.parent.parent
    if binary.exists():
        return binary
    with locked(home / "lock", timeout_s=_BUILD_S):
        if not binary.exists():
            go = _find_go()
            binary.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="build.", dir=home) as work:
                _Build(go, Path(work), progress).make(binary)
    return binary


def _find_go() -> str:
    places = (os.environ.get("GO"), shutil.which("go"), "/usr/local/go/bin/go", str(Path.home() / "go" / "bin" / "go"))
    go = next((place for place in places if place and os.access(place, os.X_OK)), None)
    if go is None:
        raise _refused("jaeger.no-go", "Jaeger is built with Go >= 1.25: put go on the PATH, or name it in GO")
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout.strip()
    parts = said.removeprefix("go").split(".")
    if len(parts) < 2 or tuple(int(part) if part.isdigit() else 0 for part in parts[:2]) < _GO_VERSION:
        raise _refused("jaeger.old-go", f"Jaeger is built with Go >= 1.25, and {go} is {said or 'none'}")
    return go


class _Build:
    """One build, in a folder of its own."""

    def __init__(self, go: str, work: Path, progress: Progress) -> None:
        self._go = go
        self._work = work
        self._progress = progress
        # Ours alone: no workspace, no flags of the user's, no download of another toolchain.
        ours = {"GOWORK": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GO111MODULE": "on", "CGO_ENABLED": "0"}
        self._environment = {**os.environ, **ours}

    def make(self, binary: Path) -> None:
        """Download, check, compile, and put the binary in its place."""
        self._progress(f"downloading the source of Jaeger {VERSION}")
        source = self._download()
        # `go install module@version` refuses a module with replace directives; a module of our own may repeat them.
        # The checksums of all dependencies come out of the checked module itself.
        replaced = [line for line in (source / "go.mod").read_text().splitlines() if line.startswith("replace ")]
        (self._work / "go.mod").write_text(_GO_FILE_HEAD + "\n".join(replaced) + "\n")
        shutil.copyfile(source / "go.sum", self._work / "go.sum")
        self._run("get", "-tool", f"{_COMMAND}@{_MODULE_VERSION}")
        packages = len(self._run("list", "-deps", _COMMAND).splitlines())
        self._compile(packages)
        (self._work / "jaeger").replace(binary)

    def _download(self) -> Path:
        said = self._run("mod", "download", "-json", f"{_MODULE}@{_MODULE_VERSION}")
        found = cast("dict[str, str]", json.loads(said))
        if found.get("Sum") != _MODULE_SUM:
            message = f"the checksum of {_MODULE}@{_MODULE_VERSION} is {found.get('Sum')}, not {_MODULE_SUM}"
            raise _refused("jaeger.checksum", message)
        return Path(found["Dir"])

    def _compile(self, packages: int) -> None:
        flags = f"-s -w -X {_MODULE}/internal/version.latestVersion=v{VERSION}"
        arguments = ("build", "-v", "-p", str(min(2, os.cpu_count() or 1)), "-mod=readonly", "-trimpath", "-buildvcs=false")
        process = subprocess.Popen(
            [self._go, *arguments, "-ldflags", flags, "-o", "jaeger", _COMMAND],
            cwd=self._work,
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        began = reported = time.monotonic()
        said: list[str] = []
        with process:
            assert process.stderr is not None
            try:
                for line in process.stderr:
                    said.append(line)
                    now = time.monotonic()
                    if now - reported >= _REPORT_EVERY_S:
                        reported = now
                        self._progress(f"compiling Jaeger: {len(said)} of {packages} packages, {now - began:.0f} s")
            except BaseException:
                process.terminate()
                raise
        if process.returncode != 0:
            raise _refused("jaeger.build", "go build failed:\n" + "".join(said[-_LAST_LINES:]))
        self._progress(f"built Jaeger {VERSION} in {time.monotonic() - began:.0f} s")

    def _run(self, *arguments: str) -> str:
        command = [self._go, *arguments]
        done = subprocess.run(command, cwd=self._work, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = "\n".join((done.stderr or done.stdout).splitlines()[-_LAST_LINES:])
            raise _refused("jaeger.build", f"go {' '.join(arguments[:2])} failed:\n{last}")
        return done.stdout


def _refused(code: str, message: str) -> ConfigurationError:
    return ConfigurationError("Jaeger cannot be had here", [Problem("jaeger", code, message)])
