"""Connecting: a client that knows the cluster, or an error that says which setting to look at."""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.errors import KafkaError

from pavane_events.buses.kafka.client import ClientArguments, client_arguments, quiet
from pavane_events.buses.kafka.failures import translated
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.buses.kafka.requests import Client, NoBrokersYet
from pavane_events.errors import BusUnavailable, ConfigurationError, Problem

log = logging.getLogger("pavane.kafka")

_CLOSE_S = 3.0
_LOOK_S = 0.05
_KNOCK_S, _MOST_KNOCK_S = 1.0, 30.0
REFUSALS = 5
"""So often on end brokers must refuse a login: each of them hears of a new password in its own time."""

_FORGET_S = 60.0
"""A refusal that is older has nothing to do with the next."""

_MAX_REASON = 200


@asynccontextmanager
async def connected(servers: str, options: KafkaOptions, *, client_id: str = "pavane") -> AsyncGenerator[Client]:
    """A client as :func:`connect` gives it, closed at the end."""
    client = await connect(servers, options, client_id=client_id)
    try:
        yield client
    finally:
        await close(client)


async def connect(servers: str, options: KafkaOptions, *, client_id: str = "pavane") -> Client:
    """A client as :meth:`Door.connect` gives it, by a door of its own; that says what is raised."""
    return await Door(servers, options).connect(client_id)


async def close(client: AIOKafkaClient) -> None:
    """Close the client, in bounded time."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.close(), _CLOSE_S)


class Door:
    """How to be let in, read once: what all clients of one door show, and what is found out about it, is the same.

    Reads the certificate files. Raises :class:`ConfigurationError` where one cannot be used.
    """

    def __init__(self, servers: str, options: KafkaOptions) -> None:
        self._servers = servers
        self._options = options
        self._arguments = client_arguments(servers, options)

    async def connect(self, client_id: str, *, join_ms: int = 0) -> Client:
        """A client that has read the cluster's metadata once; whoever gets it closes it with :func:`close`.

        ``join_ms``: how much longer a request to join a group may take than any other. Tries each server once, for at most
        the request timeout; one that knows of no brokers yet again after the others, within the same time. Raises
        :class:`BusUnavailable` where none answers, and :class:`ConfigurationError` where none lets us in and one refuses:
        user, password, mechanism, certificates.
        """
        arguments: ClientArguments = {**self._arguments, "client_id": client_id}
        client = Client(**arguments, join_ms=join_ms)
        try:
            await self._ask(client.begin)
        except BaseException:
            await close(client)
            raise
        return client

    async def watch(self, clients: Collection[Client]) -> None:
        """Find out, for ever, why clients cannot connect: they take a refusal for a broker that is away, and go on trying.

        Raises :class:`ConfigurationError` where servers have refused us :data:`REFUSALS` times on end, none of them more
        than :data:`_FORGET_S` after the one before. Where nobody is there to say no it knocks ever more seldom.
        """
        missed = refusals = 0
        refused_at = 0.0
        pause_s = _KNOCK_S
        while True:
            await asyncio.sleep(pause_s)
            before, missed = missed, sum(client.missed for client in clients)
            if missed == before:
                pause_s = _KNOCK_S
                continue
            try:
                await self.knock()
            except BusUnavailable:
                pause_s = min(_MOST_KNOCK_S, 2 * pause_s)
                continue
            except ConfigurationError as error:
                now = asyncio.get_running_loop().time()
                refusals = refusals + 1 if now - refused_at <= _FORGET_S else 1
                refused_at = now
                if refusals == REFUSALS:
                    raise
                log.warning("a broker does not let us in any more, it is tried again: %s", error)
            else:
                refusals = 0
            pause_s = _KNOCK_S

    async def knock(self) -> None:
        """See that one server lets us in. A client's own connections log why none does, and raise nothing."""
        await self._ask(_nothing)

    async def _ask(self, question: Callable[[AIOKafkaConnection], Awaitable[None]]) -> None:
        """Ask one server after the other, each on a connection for that alone, until one answers."""
        arguments = self._arguments
        give_up = time.monotonic() + arguments["request_timeout_ms"] / 1000
        hosts = collect_hosts(self._servers)
        away: Exception | None = None
        refusal: ConfigurationError | None = None
        for host, port, family in hosts:
            try:
                with quiet():
                    connection = await create_conn(
                        host,
                        port,
                        client_id=arguments["client_id"],
                        request_timeout_ms=arguments["request_timeout_ms"],
                        ssl_context=arguments["ssl_context"],
                        security_protocol=arguments["security_protocol"],
                        sasl_mechanism=arguments["sasl_mechanism"],
                        sasl_plain_username=arguments["sasl_plain_username"],
                        sasl_plain_password=arguments["sasl_plain_password"],
                    )
                    try:
                        await question(connection)
                    finally:
                        await connection.close()
                    return
            except NoBrokersYet as error:
                away = error
                if time.monotonic() < give_up:
                    hosts.append((host, port, family))
                    await asyncio.sleep(_LOOK_S)
            except ssl.SSLError as error:
                refusal = _no_tls(self._servers, self._options, error)
            except (KafkaError, OSError) as error:
                found = translated(error, f"the connection to {self._servers}")
                if isinstance(found, ConfigurationError):
                    refusal = found
                else:
                    away = error
        raise refusal or _unavailable(self._servers, self._options, away)


async def _nothing(_: AIOKafkaConnection) -> None:
    """To be let in is answer enough."""


def _no_tls(servers: str, options: KafkaOptions, error: ssl.SSLError) -> ConfigurationError:
    if isinstance(error, ssl.SSLCertVerificationError):
        authority = f"the authorities in {options.ca_file}" if options.ca_file else "the system's authorities"
        message = f"the broker's certificate is not accepted by {authority}: {error.verify_message}"
        problem = Problem("PAVANE_KAFKA_CA_FILE", "kafka.certificate", message)
    else:
        message = f"no TLS with the broker ({error.reason or error}): does its listener speak {options.security}?"
        problem = Problem("PAVANE_KAFKA_SECURITY", "kafka.security", message)
    return ConfigurationError(f"Kafka at {servers} cannot be reached securely", [problem])


def _unavailable(servers: str, options: KafkaOptions, error: BaseException | None) -> BusUnavailable:
    reason = (str(error) or type(error).__name__)[:_MAX_REASON]
    return BusUnavailable(f"Kafka does not answer at {servers} ({options.security}): {reason}; {_hint(options)}")


def _hint(options: KafkaOptions) -> str:
    if options.security == "PLAINTEXT":
        return "is it running there? Where its listener wants TLS or a password, set PAVANE_KAFKA_SECURITY"
    if options.encrypted and options.certificate_file is None:
        return (
            "is it running there, with that PAVANE_KAFKA_SECURITY? Where it asks for ours, set PAVANE_KAFKA_CERTIFICATE_FILE"
        )
    return "is it running there, with a listener of that PAVANE_KAFKA_SECURITY?"
