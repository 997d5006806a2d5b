"""What a stamp writes is what the envelope would write."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pavane_events.envelope import Envelope, Trace
from pavane_events.plain import plain
from pavane_events.stamp import Stamp

texts = st.one_of(st.none(), st.text(max_size=5))
COMMON = Envelope(
    id="one",
    source="/agents/credit-score",
    type="credit.score-computed",
    data=b"{}",
    dataschema="urn:pavane:credit.score-computed:1",
    step="credit-score/compute_score",
    part=1,
    parts=1,
    declaration="0123",
)
traces = st.builds(Trace, texts, texts, texts)


@given(
    id=st.text(max_size=5),
    data=st.binary(max_size=9),
    time=texts,
    subject=texts,
    saga=texts,
    causation=texts,
    causes=st.lists(st.text(max_size=4), max_size=3).map(tuple),
    depth=st.integers(0, 200),
    trace=traces,
    several=st.booleans(),
)
def test_a_stamp_writes_what_the_envelope_would(several: bool, **changes: object) -> None:
    common = replace(COMMON, parts=2) if several else COMMON
    envelope = replace(common, **changes)  # type: ignore[arg-type]
    stamped, written = Stamp(common).message(envelope), envelope.to_message()
    assert stamped == written
    assert stamped.size() == written.size()
    assert stamped.parsed is envelope


def test_what_is_stamped_is_read_the_short_way() -> None:
    envelope = replace(COMMON, time="2026-11-23T03:00:00+00:00", saga="s", causation="zero", causes=("zero",), depth=3)
    assert plain(*zip(*Stamp(COMMON).message(envelope).headers, strict=True)) is not None
