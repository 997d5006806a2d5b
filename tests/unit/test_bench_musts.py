"""A figure that is not what it must be is told, and ends the benchmark with 1."""

import signal
import sys
from contextlib import nullcontext

import pytest
from bench import kafka_run
from bench.kafka_musts import judged


def test_a_must_is_about_the_variants_that_it_means() -> None:
    found = {
        "agent": {"of_bare": 0.5, "cpu_us_per_msg": 40.0},
        "agent, interpreted": {"of_bare": 0.1},
        "bare": {"of_bare": 0.1},
    }
    assert [(each.holds, each.text) for each in judged("throughput", found)] == [
        (False, "FAILS: agent: of_bare is 0.5, at least 0.6"),
        (True, "holds: agent: cpu_us_per_msg is 40, at most 50"),
    ]


@pytest.mark.parametrize(("restored_s", "code"), [(9.0, 0), (11.0, 1)])
@pytest.mark.parametrize("how", ["", "--json"])
def test_a_missed_must_ends_the_benchmark_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], restored_s: float, code: int, how: str
) -> None:
    async def restore(_broker: object) -> kafka_run.Found:
        return {"100,000 keys": {"restored_s": restored_s}}

    def benches(*_: object) -> object:
        return {"restore": restore}

    def nothing(*_: object) -> nullcontext[None]:
        return nullcontext()

    for name, stands_in in {"a_broker": nothing, "a_collector": nothing, "benches": benches}.items():
        monkeypatch.setattr(kafka_run, name, stands_in)
    monkeypatch.setattr(signal, "signal", nothing)
    monkeypatch.setattr(sys, "argv", ["kafka_run", "--cold", *filter(None, [how])])
    with pytest.raises(SystemExit) as ended:
        kafka_run.main()
    assert ended.value.code == code
    assert "restored_s" in capsys.readouterr().out
