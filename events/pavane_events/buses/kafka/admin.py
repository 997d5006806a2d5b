"""Topics on the brokers: looked at, created, altered; never deleted, never given other partitions.

Names are the deployment's own; the prefix stands before them on the brokers only.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import TypeVar

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest

from pavane_events.buses.kafka.admin_protocol import (
    BROKERS_DEFAULT,
    SET,
    TOPIC,
    CreateTopics,
    IncrementalAlterConfigs,
    NewTopic,
)
from pavane_events.buses.kafka.failures import PASSING, UNKNOWN_TOPIC, translated
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.errors import BusError, BusUnavailable, ConfigurationError, Problem
from pavane_events.topics import FoundTopic, WantedTopic

_PATIENCE_S = 30.0
_PAUSE_S = 0.1
_ALREADY_EXISTS = 36
_NOT_CONTROLLER = 41
_WAIT_FOR = PASSING | {_NOT_CONTROLLER}
_FIXES = {
    29: "; a user with more rights must do this; where the topic is there, this one may not Describe it",
    31: "; a user with more rights must do this",
    38: "; set PAVANE_KAFKA_REPLICATION to at most the number of brokers",
}
"""TOPIC_ and CLUSTER_AUTHORIZATION_FAILED, INVALID_REPLICATION_FACTOR."""
Struct = TypeVar("Struct", bound=RequestStruct)
Outcome = tuple[int, str | None]
"""An error code and what the broker says to it."""

Attempt = Callable[[Collection[str]], Awaitable[Mapping[str, Outcome]]]


class Admin:
    """Administration through a client that somebody else opens and closes.

    Every call ends within about ``patience_s``. Raises :class:`BusUnavailable` where brokers are silent or topics
    without leaders for so long, and :class:`ConfigurationError`, with everything refused, where rights, policies or
    values are in the way.
    """

    def __init__(self, client: AIOKafkaClient, options: KafkaOptions, *, patience_s: float = _PATIENCE_S) -> None:
        self._client = client
        self._options = options
        self._patience_s = patience_s

    async def list_topics(self) -> list[str]:
        """The names of the deployment's topics: all that begin with its prefix, Kafka's own left out."""
        return sorted(await self.describe())

    async def describe(self, settings: Mapping[str, Collection[str]] | None = None) -> dict[str, FoundTopic]:
        """The deployment's topics. ``settings``: by topic, those of its settings that are wanted, too."""
        response = await self._send(MetadataRequest(None), "the list of topics")
        found: dict[str, FoundTopic] = {}
        for code, name, internal, partitions in response.topics:
            inside = self._options.logical(name)
            if inside is not None and not internal and not code:
                replication = min((len(replicas) for _, _, _, replicas, *_ in partitions), default=0)
                found[inside] = FoundTopic(inside, len(partitions), replication, {})
        asked = {name: keys for name, keys in (settings or {}).items() if name in found}
        for name, config in (await self._describe_configs(asked)).items():
            each = found.pop(name)
            if config is not None:  # None: deleted in between
                found[name] = FoundTopic(name, each.partitions, each.replication, config)
        return found

    async def create(self, topics: Iterable[WantedTopic], partitions: int, *, validate_only: bool = False) -> set[str]:
        """Create topics; returns the names of those that did not exist. Where one is refused, others may have been made.

        ``validate_only``: let the brokers check names, settings, policies and rights, and make nothing.
        """
        replication = self._options.replication or BROKERS_DEFAULT
        wanted: dict[str, NewTopic] = {
            topic.name: (self._options.physical(topic.name), partitions, replication, [], list(topic.config.items()))
            for topic in topics
        }

        async def attempt(names: Collection[str]) -> dict[str, Outcome]:
            request = CreateTopics(
                [wanted[name] for name in names], self._options.request_timeout_ms, validate_only=validate_only
            )
            response = await self._send(request, "new topics")
            return {self._inside(name): (code, message) for name, code, message in response.topic_errors}

        outcomes = await self._each(wanted, attempt, "be created", accepted={_ALREADY_EXISTS})
        return {name for name, code in outcomes.items() if not code}

    async def alter_configs(self, changes: Mapping[str, Mapping[str, str]], *, validate_only: bool = False) -> None:
        """Set settings of topics, and wait until brokers show them. Settings that are not named keep their values."""

        async def attempt(names: Collection[str]) -> dict[str, Outcome]:
            resources = [
                (TOPIC, self._options.physical(name), [(key, SET, value) for key, value in changes[name].items()])
                for name in names
            ]
            response = await self._send(IncrementalAlterConfigs(resources, validate_only=validate_only), "topics' settings")
            return {self._inside(name): (code, message) for code, message, _, name in response.responses}

        await self._each(changes, attempt, "be altered")
        if not validate_only:
            await self._until_shown(changes)

    async def wait_for_leaders(self, names: Collection[str]) -> None:
        """Wait until every broker knows the topics and who leads each of their partitions."""
        physical = [self._options.physical(name) for name in names]
        give_up = self._now() + self._patience_s
        while physical:
            waiting = await self._leaderless(physical)
            if not waiting:
                return
            if self._now() > give_up:
                raise BusUnavailable(
                    f"no broker leads every partition of {', '.join(sorted(waiting)[:10])}: are all of them up?"
                )
            await asyncio.sleep(_PAUSE_S)
            await self._refresh()

    async def _until_shown(self, changes: Mapping[str, Mapping[str, str]]) -> None:
        give_up = self._now() + self._patience_s
        waiting = changes
        while True:
            shown = await self._describe_configs(waiting)
            waiting = {name: each for name, each in waiting.items() if not each.items() <= (shown[name] or each).items()}
            if not waiting:
                return
            if self._now() > give_up:
                raise BusUnavailable(f"new settings do not take effect: {', '.join(sorted(waiting)[:10])}")
            await asyncio.sleep(_PAUSE_S)

    async def _leaderless(self, physical: list[str]) -> set[str]:
        waiting: set[str] = set()
        for broker in self._client.cluster.brokers():
            try:
                response = await self._client.send(broker.nodeId, MetadataRequest(physical, allow_auto_topic_creation=False))
            except KafkaError:
                return set(physical)  # it leaves the metadata soon, or comes back
            for code, name, _, partitions in response.topics:
                if code or not partitions or any(error or leader < 0 for error, _, leader, *_ in partitions):
                    waiting.add(self._inside(name))
        return waiting

    async def _describe_configs(self, asked: Mapping[str, Collection[str]]) -> dict[str, dict[str, str] | None]:
        if not asked:
            return {}
        found: dict[str, dict[str, str] | None] = {}

        async def attempt(names: Collection[str]) -> dict[str, Outcome]:
            resources = [(TOPIC, self._options.physical(name), sorted(asked[name])) for name in names]
            response = await self._send(DescribeConfigsRequest(resources), "topics' settings")
            outcomes: dict[str, Outcome] = {}
            for code, message, _, name, entries in response.resources:
                outcomes[self._inside(name)] = code, message
                found[self._inside(name)] = None if code else {key: value for key, value, *_ in entries if value is not None}
            return outcomes

        await self._each(asked, attempt, "be looked at", accepted={UNKNOWN_TOPIC})
        return found

    async def _each(
        self,
        names: Collection[str],
        attempt: Attempt,
        what: str,
        accepted: Collection[int] = (),
    ) -> dict[str, int]:
        """Attempt something for every name, again for those whose failure passes, until all are done or refused."""
        give_up = self._now() + self._patience_s
        codes: dict[str, int] = {}
        refused: list[Problem] = []
        todo = list(names)
        while todo:
            outcomes = await attempt(todo)
            todo.clear()
            for name, (code, message) in outcomes.items():
                if code in _WAIT_FOR:
                    todo.append(name)
                elif code and code not in accepted:
                    refused.append(_problem(name, code, message))
                else:
                    codes[name] = code
            if todo and self._now() > give_up:
                raise BusUnavailable(f"the brokers were not ready in {self._patience_s:g} s: {', '.join(sorted(todo)[:10])}")
            if todo:
                await asyncio.sleep(_PAUSE_S)
        if refused:
            raise ConfigurationError(f"not every topic can {what}", refused)
        return codes

    async def _send(self, request: Request[Struct], about: str) -> Response:
        """Send to the controller, then to any broker, until one answers."""
        give_up = self._now() + self._patience_s
        controller = self._client.cluster.controller
        node = controller.nodeId if controller is not None else self._any_node()
        while True:
            try:
                return await self._client.send(node, request)
            except (KafkaError, OSError) as error:
                if self._now() > give_up or not getattr(error, "retriable", True):
                    raise translated(error, about) from None
            except NotImplementedError as error:
                raise BusError(f"the brokers are of another generation than Kafka 2.4 to 4: {error}") from None
            await asyncio.sleep(_PAUSE_S)
            await self._refresh()
            node = self._any_node()

    def _any_node(self) -> int:
        return random.choice([broker.nodeId for broker in self._client.cluster.brokers()] or [-1])

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(self._options.request_timeout_ms / 1000):
                await self._client.force_metadata_update()
        except (TimeoutError, KafkaError):
            return  # whoever asked tries again and gives up by its own clock

    def _inside(self, physical: str) -> str:
        return self._options.logical(physical) or physical

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _problem(name: str, code: int, message: str | None) -> Problem:
    known = errors.for_code(code)
    reason = message or known.description or known.__name__
    return Problem(name, "topic.refused", f"{reason} ({known.__name__}, {code}){_FIXES.get(code, '')}")
