"""The credit application on a real Kafka: faults played, agents killed, every saga ended, ledgers agreed."""

from pathlib import Path

import pytest

from integration.test_demo import assert_sound, numbers_of, pavane
from support.kafka import Kafka

pytestmark = pytest.mark.slow


def test_with_faults_every_application_is_decided_and_the_ledgers_agree(kafka: Kafka, tmp_path: Path) -> None:
    numbers = numbers_of(tmp_path, "--count", "150", "--bus", kafka.url)
    assert_sound(numbers, 150)
    assert 0 < numbers["peak_rss_mb"] < 150


def test_each_agent_in_a_process_of_its_own_killed_by_its_faults_and_started_again(kafka: Kafka, tmp_path: Path) -> None:
    assert_sound(numbers_of(tmp_path, "--processes", "--count", "150", "--bus", kafka.url), 150)


def test_the_demo_says_how_to_look_at_what_it_left_on_the_brokers(kafka: Kafka, tmp_path: Path) -> None:
    told = pavane(tmp_path, "demo", "--count", "5", "--faults", "none", "--bus", kafka.url).stdout
    assert f"--bus {kafka.url} --state compensated" in told
    assert "export PAVANE_KAFKA_PREFIX=demo-" in told
