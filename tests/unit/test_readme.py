"""The README is true: its picture is what the code says, its example works, its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_picture_of_the_choreography_is_generated_from_the_code() -> None:
    shown = re.search(r"```mermaid\n(.*?)\n```\n<!-- end of graph -->", README, re.DOTALL)
    targets = ("pavane_credit.choreography:AGENTS", "pavane_credit.choreography:SAGAS")
    drawn = subprocess.run(
        [sys.executable, "-m", "pavane", "graph", *targets], check=True, capture_output=True, text=True
    ).stdout
    assert shown is not None
    assert shown[1] == drawn.strip()


def test_the_agent_of_the_readme_can_be_declared() -> None:
    code = re.search(r"```python\n(.*?)\n```", README, re.DOTALL)
    assert code is not None
    scope: dict[str, object] = {"__name__": "readme"}
    exec(compile(code[1], "README.md", "exec"), scope)
    problems = subprocess.run(
        [sys.executable, "-c", f"{code[1]}\nassert agent.problems() == []"], check=False, capture_output=True, text=True
    )
    assert problems.returncode == 0, problems.stderr


def test_the_links_of_readme_and_docs_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_tests_that_the_guarantee_names_are_there() -> None:
    page = (ROOT / "docs/guarantee.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/.]+?)(?:::(\w+))?`", page)
    missing = [
        f"{path}::{test}"
        for path, test in named
        if not (ROOT / path).exists() or (test and f"def {test}(" not in (ROOT / path).read_text(encoding="utf-8"))
    ]
    assert len(named) > 20
    assert missing == []
