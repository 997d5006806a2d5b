"""Users and rights on a real Kafka: agents log in by SCRAM and work under the rights that the reference names."""

import asyncio
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import pytest
from examples import shop

from conformance.deployments import lanes_of, scenario
from pavane.cli.groups import leaves
from pavane.cli.needs import needs_of
from pavane.dev.kafka import KafkaCluster
from pavane.dev.kafka_config import CLIENT, sasl_plain
from pavane.kit import Limits
from pavane.runner import Surroundings, run
from pavane_events.bus import TopicSpec
from pavane_events.buses.kafka.bus import KafkaBus
from pavane_events.buses.kafka.options import KafkaOptions, Mechanism
from pavane_events.buses.kafka.provision import apply
from pavane_events.errors import ConfigurationError
from pavane_events.record import Message
from pavane_events.topics import state_topic
from support.kafka import KafkaTool, MakeKafka
from support.stage import Stage, until

ADMIN = KafkaOptions(security="SASL_PLAINTEXT", mechanism="PLAIN", username="admin", password="all of it", prefix="shop.")
AGENTS = "agents"
GUEST = "guest"
"""Who may do all, for as long as there is such a user."""

PASSWORD = "open sesame"
PARTITIONS = 4
MECHANISMS: tuple[Mechanism, ...] = ("SCRAM-SHA-256", "SCRAM-SHA-512")
QUIET = Surroundings(trace=False, limits=Limits(drain_s=2.0))
RIGHTS = {
    ("--topic", "Read"): "grant this user Read and Write on the topics of this prefix",
    ("--topic", "Write"): "grant this user Read and Write on the topics of this prefix",
    ("--group", "Read"): "grant this user Read on the groups of this prefix",
    ("--transactional-id", "Write"): "grant this user Write on the transactional ids of this prefix",
}
"""As docs/reference/topics.md has them, all on the prefix; and what an agent says at its end where one is missing."""

LACKING = {right: f"no-{right[0].removeprefix('--')}-{right[1].lower()}" for right in RIGHTS}
"""Users, each of whom has all rights but this one."""

PLAIN_USERS = {"admin": "all of it", **dict.fromkeys(LACKING.values(), PASSWORD)}


def user(name: str, mechanism: Mechanism = "SCRAM-SHA-512") -> KafkaOptions:
    return KafkaOptions(security="SASL_PLAINTEXT", mechanism=mechanism, username=name, password=PASSWORD, prefix="shop.")


@pytest.fixture
def guarded(make_kafka: MakeKafka) -> KafkaCluster:
    """A broker that lets nobody do what was not granted."""
    properties = {
        **sasl_plain(PLAIN_USERS),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        f"listener.name.{CLIENT.lower()}.scram-sha-256.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        f"listener.name.{CLIENT.lower()}.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:admin;User:ANONYMOUS;User:{GUEST}",
    }
    return make_kafka(properties=properties)


@pytest.fixture
def administer(guarded: KafkaCluster, kafka_tool: KafkaTool, tmp_path: Path) -> Callable[..., None]:
    """Runs one of Kafka's tools as the administrator."""
    login = tmp_path / "admin.properties"
    login.write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config="
        'org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="all of it";\n'
    )

    def run(tool: str, *arguments: str) -> None:
        done = kafka_tool(tool, "--bootstrap-server", guarded.servers, "--command-config", str(login), *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def add_user(administer: Callable[..., None], name: str) -> None:
    for mechanism in MECHANISMS:
        secret = f"{mechanism}=[password={PASSWORD}]"
        administer("kafka.admin.ConfigCommand", "--alter", "--add-config", secret, *whose(name))


def whose(name: str) -> tuple[str, ...]:
    return "--entity-type", "users", "--entity-name", name


def grant(administer: Callable[..., None], resource: str, operation: str, users: Iterable[str]) -> None:
    who = [word for each in users for word in ("--allow-principal", f"User:{each}")]
    on = ("--resource-pattern-type", "prefixed", resource, "shop.", "--operation", operation)
    administer("org.apache.kafka.tools.AclCommand", "--add", *who, *on)


async def decide(servers: str, options: KafkaOptions) -> str:
    """One order, handed in by the administrator, through the shop of that user; how its saga ended."""
    async with (
        await KafkaBus.open(servers, PARTITIONS, ADMIN) as desk,
        await KafkaBus.open(servers, PARTITIONS, options) as bus,
    ):
        stop = asyncio.Event()
        at_work = asyncio.create_task(run(shop.AGENTS, [shop.order], bus, stop, QUIET))
        front = Stage(desk, [shop.order])
        saga = await front.publish({"order": "o-1", "cents": 500, "item": "tea"}, source=f"/{options.username}")
        verdict = asyncio.create_task(front.ended(saga))
        _ = await asyncio.wait([at_work, verdict], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        if at_work.done():
            verdict.cancel()
            _ = await asyncio.wait([verdict])
        await at_work
        return verdict.result()


async def refused(servers: str, options: KafkaOptions) -> ConfigurationError:
    """What ends the shop of a user who lacks a right."""
    try:
        await decide(servers, options)
    except BaseExceptionGroup as group:
        return cast("ConfigurationError", next(leaves(group)))
    except ConfigurationError as error:
        return error
    pytest.fail(f"{options.username} can do without")


@pytest.mark.slow
@scenario
async def test_agents_work_under_the_rights_that_the_reference_names_and_end_where_one_of_them_is_missing(
    guarded: KafkaCluster, administer: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await asyncio.to_thread(add_user, administer, AGENTS)
    for right in RIGHTS:
        having = [AGENTS, *(name for other, name in LACKING.items() if other != right)]
        await asyncio.to_thread(grant, administer, *right, having)
    wanted = needs_of(("examples.shop:AGENTS", "examples.shop:order"), f"kafka://{guarded.servers}").wanted
    with pytest.raises(ConfigurationError, match="a user with more rights must do this"):
        await apply(guarded.servers, user(AGENTS), wanted, PARTITIONS)
    await apply(guarded.servers, ADMIN, wanted, PARTITIONS)
    for mechanism in MECHANISMS:
        assert await decide(guarded.servers, user(AGENTS, mechanism)) == "completed"
    for right, said in RIGHTS.items():
        error = await refused(guarded.servers, user(LACKING[right], "PLAIN"))
        assert isinstance(error, ConfigurationError), (right, error)
        assert said in str(error), right
    await deny_reading(guarded.servers, administer, "shop.order-placed")


async def deny_reading(servers: str, administer: Callable[..., None], topic: str) -> None:
    """A right that is taken away from a member at work: it ends, and names the topic, and does not read on in silence."""
    async with (
        await KafkaBus.open(servers, PARTITIONS, ADMIN) as desk,
        await KafkaBus.open(servers, PARTITIONS, user(AGENTS)) as bus,
    ):
        await desk.create_topics([TopicSpec(state_topic("watching"), compacted=True)])
        lanes = await bus.lanes("watching", [topic])
        assert len(await lanes_of(lanes)) == PARTITIONS
        on = ("--topic", ADMIN.physical(topic), "--operation", "Read")
        await asyncio.to_thread(
            administer, "org.apache.kafka.tools.AclCommand", "--add", "--deny-principal", f"User:{AGENTS}", *on
        )
        with pytest.raises(ConfigurationError, match=f"Fetch .*{topic}.*grant this user Read"):
            await anext(lanes)


def says_to_check_the_password(error: BaseException) -> bool:
    fix = re.search("check PAVANE_KAFKA_SECURITY.* and the password", str(error))
    return isinstance(error, ConfigurationError) and fix is not None


@pytest.mark.slow
@scenario
async def test_who_must_log_in_again_when_his_password_was_taken_back_is_told_so_and_agents_end(
    guarded: KafkaCluster, administer: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(add_user, administer, GUEST)
    wanted = needs_of(("examples.shop:AGENTS", "examples.shop:order"), f"kafka://{guarded.servers}").wanted
    await apply(guarded.servers, ADMIN, wanted, PARTITIONS)
    async with (
        await KafkaBus.open(guarded.servers, PARTITIONS, user(GUEST)) as bus,
        await KafkaBus.open(guarded.servers, PARTITIONS, user(GUEST)) as desk,
    ):
        event = Message(shop.order.intake, b"{}", b"key")
        await desk.publish([event])
        at_work = asyncio.create_task(run(shop.AGENTS, [shop.order], bus, asyncio.Event(), QUIET))

        async def ready() -> bool:
            return not bus.unready()

        await until(ready)
        delete = ("--alter", "--delete-config", "SCRAM-SHA-512", *whose(GUEST))
        await asyncio.to_thread(administer, "kafka.admin.ConfigCommand", *delete)
        assert not at_work.done(), "who is in is not asked again"
        await asyncio.to_thread(guarded.node(1).restart)
        with pytest.raises(ExceptionGroup) as raised:
            async with asyncio.timeout(60):
                await at_work
        _, others = raised.value.split(says_to_check_the_password)  # several members may be refused at one time
        assert others is None
        with pytest.raises(ConfigurationError) as refusal:
            await desk.publish([event])
        assert says_to_check_the_password(refusal.value)
    assert "a broker does not let us in any more" in caplog.text
