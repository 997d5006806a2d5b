"""For tests that only the sources can pass: they patch what is a C library's where it is compiled, or give it wrong types."""

import pytest

from pavane_events.compiled import COMPILED

sources_only = pytest.mark.skipif(COMPILED, reason="what is compiled cannot be patched, and checks its types")
