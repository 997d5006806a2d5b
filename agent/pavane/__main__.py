"""``python -m pavane`` is the ``pavane`` command."""

from pavane.cli.main import main

main()
