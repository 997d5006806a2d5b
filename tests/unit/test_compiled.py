"""Whatever the project says is compiled is a library where anything is, and nothing is where nothing is."""

import sys
import tomllib
from importlib import import_module
from pathlib import Path
from subprocess import run

import pytest

from pavane_events.compiled import COMPILED

ROOT = Path(__file__).parents[2]
HOOKS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
MODULES: list[str] = HOOKS["custom"]["modules"]


@pytest.mark.parametrize("path", MODULES)
def test_a_module_that_is_named_is_compiled_where_any_is(path: str) -> None:
    assert (ROOT / path).is_file()
    module = import_module(path.partition("/")[2].removesuffix(".py").replace("/", "."))
    assert (Path(module.__file__ or "").suffix != ".py") == COMPILED


def test_the_version_says_so() -> None:
    said = run([sys.executable, "-m", "pavane", "--version"], capture_output=True, text=True, check=True).stdout
    assert said.strip().endswith("(compiled)") == COMPILED
