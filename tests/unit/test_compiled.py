"""Whatever the project says is compiled is a library where anything is, and nothing is where nothing is."""

import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from subprocess import run

import pytest

from pavane_events.compiled import COMPILED
from support.awaiting import awaits_while_handling

ROOT = Path(__file__).parents[2]
HOOKS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
MODULES: list[str] = HOOKS["custom"]["modules"]


@pytest.mark.parametrize("path", MODULES)
def test_a_module_that_is_named_is_compiled_where_any_is(path: str) -> None:
    assert (ROOT / path).is_file()
    module = import_module(path.partition("/")[2].removesuffix(".py").replace("/", "."))
    assert (Path(module.__file__ or "").suffix != ".py") == COMPILED


@pytest.mark.parametrize("path", MODULES)
def test_no_coroutine_of_a_compiled_module_awaits_while_it_handles_an_exception(path: str) -> None:
    assert [*awaits_while_handling((ROOT / path).read_text())] == []


@pytest.mark.parametrize("path", MODULES)
def test_the_constants_of_a_compiled_module_are_final(path: str) -> None:
    """Else a compiled function looks them up by name each time, and takes numbers apart. Names of types are not looked up."""
    constant = re.compile(r"^(_?[A-Z][A-Z0-9_]*[A-Z]|_[A-Z]|log)(: (?!Final|\"Final).*)? = ", re.MULTILINE)
    assert not constant.search((ROOT / path).read_text())


@pytest.mark.parametrize(
    "body",
    [
        "try:\n  g()\n except E:\n  await f()",
        "try:\n  g()\n finally:\n  if x:\n   await f()",
        "async with group():\n  g()",
        "try:\n  g()\n except E:\n  try:\n   await f()\n  except F:\n   pass",
    ],
)
def test_a_coroutine_that_does_is_found(body: str) -> None:
    assert [*awaits_while_handling(f"async def a():\n {body}")]


def test_a_coroutine_that_handles_first_and_then_awaits_is_fine() -> None:
    fine = "try:\n  await f()\n except E:\n  later = lambda: g()\n async with asyncio.timeout(1):\n  await h()"
    assert not [*awaits_while_handling(f"async def a():\n {fine}")]


def test_the_version_says_so() -> None:
    said = run([sys.executable, "-m", "pavane", "--version"], capture_output=True, text=True, check=True).stdout
    assert said.strip().endswith("(compiled)") == COMPILED
