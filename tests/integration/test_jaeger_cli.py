"""``pavane trace`` and ``pavane publish`` with a Jaeger: the same tree as from the bus, and links that lead somewhere."""

import asyncio
import json
import re
import uuid
from pathlib import Path
from typing import cast

import pytest

from support.jaeger import JaegerServer, orphans_of, roots_of
from unit import cli_toy
from unit.cli_shell import Shell

ORDER = json.dumps({"order_id": "A-1", "amount": 20})
PUBLISH = ("publish", "toy.orders", "--data", ORDER, "--app", "unit.cli_toy:EVERYTHING")
NOBODY = "http://127.0.0.1:9"

Node = dict[str, object]


@pytest.fixture
def exporting(jaeger: JaegerServer, monkeypatch: pytest.MonkeyPatch) -> JaegerServer:
    """Spans go to the Jaeger."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger.otlp_http)
    return jaeger


@pytest.fixture
def pavane(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    monkeypatch.setenv("PAVANE_BUS", f"sqlite:///{tmp_path / 'bus.db'}")
    return Shell(monkeypatch, capsys)


@pytest.fixture
def name() -> str:
    """What orders are called that no other test has: the Jaeger is everybody's, and forgets nothing."""
    return uuid.uuid4().hex


def perform(path: Path, name: str) -> str:
    """One order is refused, and what was done for it is undone."""
    (order,) = asyncio.run(cli_toy.perform(f"sqlite:///{path}", [cli_toy.REFUSED], name=name))
    return order


def perform_exporting(path: Path, name: str, jaeger: JaegerServer) -> str:
    """The same, and its spans can be read."""
    order = perform(path, name)
    jaeger.settle()
    return order


def shape(nodes: object) -> list[object]:
    """A tree without what differs from run to run: who did what, and what that led to."""
    found = [
        (str(node["service"]), str(node["name"]), str(node["undoes"]), shape(node["children"]))
        for node in cast("list[Node]", nodes)
    ]
    return sorted(found, key=repr)


def test_the_tree_drawn_from_jaeger_is_the_one_that_the_bus_keeps(
    pavane: Shell, jaeger: JaegerServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    order = perform(tmp_path / "kept.db", name)
    kept = pavane("trace", order, "--json", "--bus", f"sqlite:///{tmp_path / 'kept.db'}").document
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger.otlp_http)
    assert perform_exporting(tmp_path / "bus.db", name, jaeger) == order
    monkeypatch.setenv("PAVANE_JAEGER_URL", jaeger.query)
    exported = pavane("trace", order, "--json").document
    assert (exported["continuous"], exported["findings"]) == (True, [])
    assert exported["link"] == f"{jaeger.query}/trace/{exported['traceId']}"
    assert (kept["link"], kept["services"], kept["spans"]) == (None, exported["services"], exported["spans"])
    assert shape(kept["roots"]) == shape(exported["roots"])


def test_an_exported_trace_is_drawn_with_its_link(
    pavane: Shell, exporting: JaegerServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    order = perform_exporting(tmp_path / "bus.db", name, exporting)
    monkeypatch.setenv("PAVANE_JAEGER_URL", exporting.query)
    said = pavane("trace", order)
    assert (said.code, said.err) == (0, "")
    assert "payment ↩ undoes charge" in said.out
    last = said.out.splitlines()[-1]
    trace = jaegers_trace(last.removeprefix("in Jaeger: "), exporting)
    assert orphans_of(exporting.trace(trace)) == []


def test_what_is_tried_again_on_somebodys_word_is_whole_too(
    pavane: Shell, exporting: JaegerServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    url = f"sqlite:///{tmp_path / 'bus.db'}"
    (order,) = asyncio.run(cli_toy.perform(url, [cli_toy.STUCK], name=name))
    assert pavane("sagas", "retry", order, "--why", "a new blade").code == 0
    asyncio.run(cli_toy.go_on(url, order, lambda story: sum(each.kind == "undo-failed" for each in story.chapters) == 2))
    exporting.settle()
    monkeypatch.setenv("PAVANE_JAEGER_URL", exporting.query)
    for which in (order, "--all"):
        said = pavane("trace", "--check", which)
        assert (said.code, said.err) == (0, ""), said.out


def test_without_an_address_it_says_which_trace_it_is_and_what_to_set(
    pavane: Shell, exporting: JaegerServer, tmp_path: Path, name: str
) -> None:
    order = perform_exporting(tmp_path / "bus.db", name, exporting)
    said = pavane("trace", order)
    assert said.code == 1
    found = re.search(r"Its trace is ([0-9a-f]{32}): PAVANE_JAEGER_URL=", said.err)
    assert found is not None
    assert len(roots_of(exporting.trace(found[1]))) == 1


def test_a_jaeger_that_does_not_answer_is_named(
    pavane: Shell, exporting: JaegerServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    order = perform_exporting(tmp_path / "bus.db", name, exporting)
    monkeypatch.setenv("PAVANE_JAEGER_URL", NOBODY)
    said = pavane("trace", order)
    assert said.code == 1
    assert said.err.startswith(f"error: no Jaeger answers at {NOBODY}: ")


def test_what_is_published_can_be_followed_at_the_link(
    pavane: Shell, exporting: JaegerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAVANE_JAEGER_URL", exporting.query)
    said = pavane(*PUBLISH)
    exporting.settle()
    assert (said.code, said.err) == (0, "")
    (link,) = re.findall(r"^trace: (.+)$", said.out, re.MULTILINE)
    (root,) = exporting.trace(jaegers_trace(link, exporting))
    assert (root.service, root.name) == ("cli", "send toy.orders")


def test_what_is_traced_by_others_only_is_searched_for_by_its_saga(pavane: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("PAVANE_JAEGER_URL", NOBODY)
    said = pavane(*PUBLISH)
    assert re.search(rf"^trace: {NOBODY}/search\?service=coordinator&tags=%7B%22saga.id%22", said.out, re.MULTILINE)


def test_what_the_bus_keeps_itself_has_no_link(pavane: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_JAEGER_URL", NOBODY)
    assert "trace:" not in pavane(*PUBLISH).out


def jaegers_trace(link: str, jaeger: JaegerServer) -> str:
    found = re.fullmatch(re.escape(jaeger.query) + "/trace/([0-9a-f]{32})", link)
    assert found is not None, link
    return found[1]
