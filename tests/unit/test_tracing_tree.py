"""The tree of a saga: hops, queues, undos and linked traces in their places, and how it is drawn."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from pavane_tracing.drawing import draw, to_text
from pavane_tracing.span import Kind, SpanEvent, SpanLink, SpanRow, Value
from pavane_tracing.tree import build_tree

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
LATER = "b" * 32
SAGA = "0190a4b2-6f3c-7d1e-8a9b-0c1d2e3f4a5b"
MS = 1_000_000


def span(
    number: int,
    parent: int | None,
    service: str,
    name: str,
    at_ms: float,
    took_ms: float = 0.04,
    *,
    kind: Kind = "CONSUMER",
    step: str | None = None,
    trace: str = TRACE,
    links: tuple[int, ...] = (),
    saga: str | None = SAGA,
    more: Mapping[str, Value] | None = None,
) -> SpanRow:
    event_type = name.partition(" ")[2] if name.startswith(("process ", "send ")) else None
    own = {
        "saga.id": saga,
        "saga.name": "credit-decision" if saga else None,
        "saga.step": step,
        "event.type": event_type,
    }
    return SpanRow(
        trace_id=trace,
        span_id=f"{number:016x}",
        parent_span_id=f"{parent:016x}" if parent is not None else None,
        name=name,
        kind=kind,
        start_ns=int(at_ms * MS),
        end_ns=int((at_ms + took_ms) * MS),
        service=service,
        attributes={**{key: value for key, value in own.items() if value is not None}, **(more or {})},
        links=tuple(SpanLink(TRACE, f"{link:016x}") for link in links),
    )


def saga() -> list[SpanRow]:
    """A decision that failed: scored, then income refused after a retry; the score undone; income tried once later."""
    score, income, submitted = "credit-score/compute_score", "income/verify_income", "credit.application-submitted"
    failed: dict[str, Value] = {"error.type": "step.failed"}
    return [
        span(1, None, "pavane", "send credit.applications", 0, kind="PRODUCER", saga=None),
        span(2, 1, "coordinator", "process credit.applications", 2.5, 1.2),
        span(3, 2, "coordinator", "saga credit-decision start", 2.9, kind="INTERNAL"),
        span(4, 2, "coordinator", f"send {submitted}", 3, kind="PRODUCER"),
        span(5, 4, "credit-score", f"process {submitted}", 5, 41.3, step=score),
        span(6, 5, "credit-score", "GET https://bureau.example/inquiries/a-very-long-path", 5.5, 40, kind="CLIENT"),
        span(7, 5, "credit-score", "send credit.score-computed", 46, kind="PRODUCER", step=score),
        replace(
            span(8, 4, "income", f"process {submitted}", 5.2, 1830, step=income, more=failed),
            status="ERROR",
            events=(SpanEvent("retry", 1, {}), SpanEvent("retry", 2, {}), SpanEvent("rejected", 3, {})),
        ),
        span(9, 8, "income", "send pavane.facts", 1835, kind="PRODUCER", step=income),
        span(10, 9, "coordinator", "process pavane.facts", 1840, 0.9),
        span(11, 10, "coordinator", "send credit-score.commands", 1840.5, kind="PRODUCER"),
        span(
            12,
            11,
            "credit-score",
            "process credit-score.commands",
            1842,
            12.2,
            step=score,
            links=(11, 7),
            more={"saga.undo": True},
        ),
        span(14, 12, "credit-score", "send pavane.facts", 1854, kind="PRODUCER", step=score),
        span(15, 14, "coordinator", "process pavane.facts", 1860, 1),
        span(16, 15, "coordinator", "saga credit-decision end", 1860.5, kind="INTERNAL", more={"saga.verdict": "compensated"}),
        span(17, 15, "coordinator", "send pavane.saga-ended", 1860.6, kind="PRODUCER"),
        span(18, 15, "coordinator", "send pavane.ends", 1860.7, kind="PRODUCER"),
        span(19, 18, "credit-score", "process pavane.ends", 1862),
        span(20, 18, "income", "process pavane.ends", 1863),
        span(13, None, "income", f"process {submitted}", 4200, 3.1, step=income, trace=LATER, links=(4, 8)),
    ]


def test_every_span_has_its_place_whatever_order_they_come_in() -> None:
    rows = saga()
    tree = build_tree(list(reversed(rows)), SAGA)
    assert tree == build_tree(rows, SAGA)
    assert [int(node.row.span_id, 16) for node in tree.nodes()] == [
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        12,
        14,
        15,
        16,
        17,
        18,
        19,
        20,
        13,
    ]
    assert tree.saga_name == "credit-decision"
    assert tree.services == ("coordinator", "credit-score", "income", "pavane")
    assert tree.duration_ns == 4_203_100_000


def test_a_hop_knows_how_long_its_message_was_queued() -> None:
    queued = {int(node.row.span_id, 16): node.queued_ns for node in build_tree(saga(), SAGA).nodes()}
    assert queued[2] == 2_460_000
    assert queued[5] == 1_960_000
    assert queued[13] == 4_196_960_000
    assert queued[6] is None
    assert queued[1] is None


def test_an_undo_points_to_the_step_it_undoes() -> None:
    rows = saga()
    (undo,) = [node for node in build_tree(rows, SAGA).nodes() if node.undoes]
    assert undo.undoes == "credit-score/compute_score"
    assert undo.undone == rows[4]


def test_an_undo_without_links_points_to_the_last_such_step_before() -> None:
    rows = [replace(row, links=()) for row in saga()]
    (undo,) = [node for node in build_tree(rows, SAGA).nodes() if node.undoes]
    assert undo.undone == rows[4]


def test_an_undo_of_a_step_that_is_not_there_points_to_nothing() -> None:
    rows = [row for row in saga() if row.span_id != f"{5:016x}"]
    (undo,) = [node for node in build_tree(rows, SAGA).nodes() if node.undoes]
    assert undo.undone is None


def test_other_sagas_are_left_out_and_what_led_here_is_kept() -> None:
    foreign = span(20, 10, "x", "send x", 1841, kind="PRODUCER", saga="saga-2")
    stranger = span(21, None, "x", "send x", 0, kind="PRODUCER", saga=None, trace="c" * 32)
    assert build_tree([*saga(), foreign, stranger], SAGA) == build_tree(saga(), SAGA)


def test_nothing_known_is_an_empty_tree() -> None:
    tree = build_tree([], SAGA)
    assert (tree.roots, tree.duration_ns, tree.saga_name) == ((), 0, None)
    assert SAGA in to_text(tree)


DRAWN = """\
saga 0190a4b2-6f3c-7d1e-8a9b-0c1d2e3f4a5b credit-decision
◆ 5 hops: 17.0 ms queued, 1.84 s at work; longest 1.83 s in income/verify_income
20 spans · 4 services · 4.20 s · 1 error                                          queued      work
├── pavane send credit.applications                                                          40 µs ◆
│   └── coordinator ← credit.applications                                        +2.5 ms    1.2 ms ◆
│       ├── coordinator saga credit-decision start                                           40 µs
│       ├── credit-score/compute_score ← credit.application-submitted            +2.0 ms   41.3 ms
│       │   ├── credit-score GET https://bureau.example/inquiries/a-very-long…             40.0 ms
│       │   ├── credit-score send credit.score-computed (not consumed)                       40 µs
│       │   └── credit-score ↩ undoes compute_score                              +1.5 ms   12.2 ms ◆
│       │       └── coordinator ← pavane.facts                                   +6.0 ms    1.0 ms ◆
│       │           ├── coordinator saga credit-decision end                                 40 µs ◆
│       │           └── 2 services ← pavane.ends: credit-score, income           +2.3 ms     40 µs
│       └── income/verify_income ← …-submitted retry ×2 rejected ✗ step.failed   +2.2 ms    1.83 s ◆
│           └── coordinator ← pavane.facts ↩ asks for 1 undo                     +5.0 ms    0.9 ms ◆
└── linked from coordinator (send credit.application-submitted), income/verify_income (process cred…
    └── income/verify_income ← credit.application-submitted                      +4.20 s    3.1 ms
"""


def test_the_drawing_fits_a_terminal_and_lines_its_columns_up() -> None:
    text = to_text(build_tree(saga(), SAGA))
    assert all(len(line) <= 100 for line in text.splitlines())
    assert text == DRAWN


def test_a_deep_tree_and_long_names_still_fit() -> None:
    rows = [
        span(number, number - 1 or None, "a-service-with-a-long-name", "process " + "x" * 80, number, step="y" * 60)
        for number in range(1, 30)
    ]
    assert all(len(line) <= 100 for line in to_text(build_tree(rows, SAGA)).splitlines())


def chain(hops: int, *, undone: bool = False) -> list[SpanRow]:
    """So many hops in a row; on the way back each is undone, the last first."""
    rows: list[SpanRow] = []
    for hop in range(hops):
        number = 2 * hop + 1
        rows.append(span(number, number - 1 or None, "walker", f"send walk.step-{hop}", hop, kind="PRODUCER"))
        rows.append(span(number + 1, number, "walker", f"process walk.step-{hop}", hop + 0.5, 0.25, step=f"walker/go_{hop}"))
    more: dict[str, Value] = {"saga.undo": True}
    for hop in reversed(range(hops)) if undone else ():
        number, at_ms, step = len(rows) + 1, 2.0 * hops - hop, f"walker/go_{hop}"
        rows.append(span(number, number - 1, "coordinator", "send walker.commands", at_ms, kind="PRODUCER"))
        undo = span(number + 1, number, "walker", "process walker.commands", at_ms + 0.1, 0.5, step=step, more=more)
        rows.append(replace(undo, links=(SpanLink(TRACE, f"{2 * hop + 2:016x}"),)))
    return rows


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("undone", [False, True])
def test_of_a_long_chain_every_hop_has_a_line_with_its_times(width: int, undone: bool) -> None:
    lines = to_text(build_tree(chain(240, undone=undone), SAGA), width=width).splitlines()
    assert all(len(line) <= width for line in lines)
    steps = [next(line for line in lines if f"/go_{hop} " in line) for hop in range(240)]
    assert all(re.search(r"\+0\.5 ms +0.2 ms", line) for line in steps)
    assert [line for line in lines[4:] if "/go_" in line] == steps
    undos = [line for line in lines if "↩ undoes go_" in line]
    assert len(undos) == (240 if undone else 0)
    assert all(" 0.5 ms" in line for line in undos)
    if undone:
        places = {step: lines.index(step) for step in steps}
        assert all(f"undoes go_{hop} " in lines[places[step] + 1] for hop, step in enumerate(steps[:-1]))


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_tree_that_forks_at_every_hop_is_drawn_in_full(width: int) -> None:
    rows = [span(n, n // 2 or None, "forker", "process t", n, 0.25, step=f"forker/s_{n}") for n in range(1, 1_024)]
    lines = to_text(build_tree(rows, SAGA), width=width).splitlines()
    assert all(sum(f"/s_{n} " in line and "0.2 ms" in line for line in lines) == 1 for n in range(1, 1_024))


def test_what_goes_on_at_the_same_level_follows_the_line_above() -> None:
    rows = [*chain(40), span(99, 40, "clerk", "process walk.step-19", 50, step="clerk/note")]
    lines = [line for line in to_text(build_tree(rows, SAGA), width=80).splitlines() if "/" in line]
    at = next(index for index, line in enumerate(lines) if "go_19 " in line)
    assert [line.split("/")[0].strip("│├└─ ") for line in lines[at : at + 3]] == ["⤷ walker", "clerk", "⤷ walker"]
    assert lines[at + 1].index("clerk") == lines[at].index("⤷") + 4


def test_clocks_that_disagree_are_shown_as_they_are() -> None:
    rows = [span(1, None, "a", "send t", 5, kind="PRODUCER"), span(2, 1, "b", "process t", 3, 150_000)]
    drawn = to_text(build_tree(rows, SAGA))
    assert "-2.0 ms" in drawn
    assert "2.5 min" in drawn


def test_at_eighty_columns_what_went_wrong_is_still_there() -> None:
    text = to_text(build_tree(saga(), SAGA), width=80)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "income/verify_income retry ×2 rejected ✗ step" in text


def test_an_undo_is_drawn_below_the_step_that_it_undoes_and_its_cause_says_how_many() -> None:
    lines = to_text(build_tree(saga(), SAGA)).splitlines()
    step = next(index for index, line in enumerate(lines) if "credit-score/compute_score" in line)
    undo = next(index for index, line in enumerate(lines) if "↩ undoes compute_score" in line)
    failed = next(index for index, line in enumerate(lines) if "── income/verify_income" in line)
    assert step < undo < failed
    assert lines[undo].index("credit-score") == lines[step].index("credit-score") + 4
    assert sum("↩ asks for 1 undo" in line for line in lines) == 1


def test_an_undo_whose_step_is_not_there_is_drawn_where_it_was_asked_for() -> None:
    rows = [row for row in saga() if row.span_id != f"{5:016x}"]
    assert "↩ undoes compute_score" in to_text(build_tree(rows, SAGA))


def test_the_critical_path_is_what_the_end_waited_for_and_its_times_add_up() -> None:
    tree = build_tree(saga(), SAGA)
    assert [int(leg.row.span_id, 16) for leg in tree.path] == [2, 8, 10, 12, 15]
    rows = {int(node.row.span_id, 16): node.row for node in tree.nodes()}
    whole = sum((leg.queued_ns or 0) + leg.worked_ns for leg in tree.path)
    assert whole == rows[16].end_ns - rows[1].end_ns
    assert {int(node.row.span_id, 16) for node in tree.nodes() if node.critical} == {1, 2, 4, 8, 9, 10, 11, 12, 14, 15, 16}


def test_of_a_saga_that_is_open_the_path_leads_to_what_ended_last_over_linked_traces() -> None:
    rows = [row for row in saga() if "saga.verdict" not in row.attributes]
    path = build_tree(rows, SAGA).path
    assert [int(leg.row.span_id, 16) for leg in path] == [2, 8, 13]
    assert path[-1].queued_ns == rows[-1].start_ns - next(row for row in rows if row.span_id == f"{8:016x}").end_ns


def test_spans_that_are_each_others_parents_have_a_path_with_an_end() -> None:
    rows = [span(1, 2, "a", "process t", 0), span(2, 1, "a", "process t", 1)]
    assert len(build_tree(rows, SAGA).path) == 2


def test_sends_are_shown_on_demand() -> None:
    tree = build_tree(saga(), SAGA)
    folded, full = to_text(tree), to_text(tree, sends=True)
    assert "send pavane.saga-ended" not in folded
    assert "send pavane.saga-ended" in full
    assert "send credit-score.commands" not in full, "what an undo came by is not where the undo is drawn"
    assert len(full.splitlines()) == len(folded.splitlines()) + 5


def test_a_root_whose_parent_is_missing_says_so() -> None:
    rows = [row for row in saga() if row.span_id != f"{1:016x}"]
    assert "begun by a span that is not here" in to_text(build_tree(rows, SAGA))


def test_colours_mark_errors_and_undos() -> None:
    file = StringIO()
    Console(file=file, width=100, force_terminal=True, color_system="standard").print(draw(build_tree(saga(), SAGA)))
    assert "\x1b[1;31m ✗ step.failed" in file.getvalue()
    assert "\x1b[33m ↩ undoes compute_score" in file.getvalue()


def test_the_json_nests_and_says_what_the_drawing_says() -> None:
    document = json.loads(json.dumps(build_tree(saga(), SAGA).to_json()))
    assert document["saga"] == SAGA
    assert document["spans"] == 20
    assert [leg["hop"] for leg in document["criticalPath"]][-2:] == [
        "credit-score.commands -> undo of credit-score/compute_score",
        "pavane.facts -> coordinator",
    ]
    first, later = document["roots"]
    assert first["children"][0]["queuedNanos"] == 2_460_000
    assert later["linkedFrom"] == [
        {"traceId": TRACE, "spanId": f"{4:016x}"},
        {"traceId": TRACE, "spanId": f"{8:016x}"},
    ]
