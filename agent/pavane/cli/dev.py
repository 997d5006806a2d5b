"""``pavane dev``: real servers on this machine without Docker, for development."""

import typer

from pavane.cli import dev_jaeger, dev_kafka

app = typer.Typer(help="Real servers on this machine, without Docker, for development.", no_args_is_help=True)
app.add_typer(dev_kafka.app, name="kafka")
app.command("jaeger")(dev_jaeger.jaeger)
