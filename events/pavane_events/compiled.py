"""Whether the hot modules are compiled: the same sources either way, see docs/how-to/compiled.md."""

from pavane_events import record

COMPILED = not record.__file__.endswith(".py")
