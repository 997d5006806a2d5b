"""An agent that only passes events on, as many as there are. Run by ``pavane run chaos.kafka_parcels:agent``."""

from pavane import Agent, Event
from pavane_events.envelope import Envelope
from pavane_events.ids import uuid7
from pavane_events.record import Message


class Parcel(Event, type="parcels.sent"):
    note: str


class Passed(Event, type="parcels.passed"):
    note: str


agent = Agent("parcels")


@agent.step(effects=False)
async def pass_on(parcel: Parcel) -> Passed:
    """As it is."""
    return Passed(note=parcel.note)


def a_parcel() -> Message:
    """One that a saga might have published, of about 600 bytes with its headers."""
    saga = uuid7()
    data = Parcel(note="x" * 280).to_json()
    return Envelope(
        id=uuid7(),
        source="/agents/sender",
        type=Parcel.event_type,
        data=data,
        dataschema=Parcel.dataschema(),
        saga=saga,
        causation=saga,
        causes=(saga,),
        step="sender/send",
        depth=1,
        declaration="sender@1",
    ).to_message()
