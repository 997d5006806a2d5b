"""Ids of traces and spans: each is another's, also in several threads and in a process that was forked."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from pavane_tracing.identity import new_span_id, new_trace_id

FORKED = r"""
import os
from pavane_tracing.identity import new_span_id, new_trace_id
new_span_id()
child = os.fork()
os.write(1, (" ".join([*(new_span_id() for _ in range(200)), new_trace_id()]) + "\n").encode())
if child:
    os.waitpid(child, 0)
"""


def test_they_are_hex_of_the_length_that_w3c_asks_for() -> None:
    for _ in range(1_000):
        assert len(bytes.fromhex(new_span_id())) == 8
        assert len(bytes.fromhex(new_trace_id())) == 16


def test_no_thread_has_one_of_another() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = [each.result() for each in [threads.submit(new_span_id) for _ in range(20_000)]]
    assert len(set(found)) == len(found)


def test_a_process_that_is_forked_has_none_of_its_parent_s() -> None:
    said = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=60).stdout
    parent, child = said.splitlines()
    assert set(parent.split()).isdisjoint(child.split())
    assert len({*parent.split(), *child.split()}) == 402
