"""A trip: flight, hotel and car are reserved side by side, then all of it is paid, then confirmed; or none of it is.

pavane check examples.trip:AGENTS examples.trip:trip
pavane run examples.trip:AGENTS examples.trip:trip
pavane publish trip.requests --app examples.trip:trip --data '{"trip": "t-1", "city": "Lisbon", "nights": 3, "card": "good"}'
pavane verify examples.trip:verification --exhaustive

Each desk keeps its own reservations, with a fence: what was cancelled cannot be reserved by a process that woke too late.
"""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import timedelta

from pydantic import Field

from pavane import Agent, Context, Event, Fence, Rejected, Saga
from pavane.testing import HistoryPlayed, Verification


class TripRequested(Event, type="trip.requested", version=1):
    trip: str = Field(min_length=1)
    city: str
    nights: int = Field(ge=1, le=30)
    card: str


class FlightReserved(Event, type="trip.flight-reserved", version=1):
    trip: str
    card: str
    cents: int


class HotelReserved(Event, type="trip.hotel-reserved", version=1):
    trip: str
    cents: int


class CarReserved(Event, type="trip.car-reserved", version=1):
    trip: str
    cents: int


class TripPaid(Event, type="trip.paid", version=1):
    trip: str
    cents: int


class TripConfirmed(Event, type="trip.confirmed", version=1):
    trip: str
    cents: int


class Desk:
    """One desk's book of what was reserved or charged, by idempotency key."""

    place = "trip.db"
    fence = Fence()

    def __init__(self, table: str) -> None:
        self.table = table

    def write(self, ctx: Context, what: str, cents: int) -> None:
        """Write it once. Raises EffectUndone where it was struck out before."""
        with self._book() as book:
            if self.fence.do(book, ctx.idempotency_key):
                book.execute(f"INSERT INTO {self.table} VALUES (?, ?, ?, ?)", (ctx.idempotency_key, ctx.saga, what, cents))

    def strike(self, ctx: Context) -> None:
        """Strike it out, whether or not it is there, for ever."""
        with self._book() as book:
            if self.fence.undo(book, ctx.idempotency_key):
                book.execute(f"DELETE FROM {self.table} WHERE key = ?", (ctx.idempotency_key,))

    def of(self, saga: str) -> list[int]:
        """The amounts that stand for a saga."""
        with self._book() as book:
            return [int(row[0]) for row in book.execute(f"SELECT cents FROM {self.table} WHERE saga = ?", (saga,))]

    @contextmanager
    def _book(self) -> Generator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.place, timeout=10, uri=True)) as book, book:
            self.fence.create(book)
            book.execute(
                f"CREATE TABLE IF NOT EXISTS {self.table} (key TEXT PRIMARY KEY, saga TEXT, what TEXT, cents INTEGER)"
            )
            yield book


flights, hotels, cars, payments = Desk("flights"), Desk("hotels"), Desk("cars"), Desk("payments")
airline, hotel, rental, cashier = Agent("airline"), Agent("hotel"), Agent("car-rental"), Agent("cashier")


@airline.step
async def reserve_flight(wish: TripRequested, ctx: Context) -> FlightReserved:
    if wish.city == "Atlantis":
        raise Rejected("nobody flies there")
    flights.write(ctx, f"seat to {wish.city}", 120_00)
    return FlightReserved(trip=wish.trip, card=wish.card, cents=120_00)


@reserve_flight.compensate
async def cancel_flight(wish: TripRequested, done: FlightReserved | None, ctx: Context) -> None:
    flights.strike(ctx)


@hotel.step
async def reserve_room(wish: TripRequested, ctx: Context) -> HotelReserved:
    cents = wish.nights * 80_00
    hotels.write(ctx, f"{wish.nights} nights in {wish.city}", cents)
    if wish.nights > 14:
        raise Rejected("no room for so long")  # after it was written: the undo finds it
    return HotelReserved(trip=wish.trip, cents=cents)


@reserve_room.compensate
async def cancel_room(wish: TripRequested, done: HotelReserved | None, ctx: Context) -> None:
    hotels.strike(ctx)


@rental.step
async def reserve_car(wish: TripRequested, ctx: Context) -> CarReserved:
    cars.write(ctx, f"car in {wish.city}", wish.nights * 30_00)
    return CarReserved(trip=wish.trip, cents=wish.nights * 30_00)


@reserve_car.compensate
async def cancel_car(wish: TripRequested, done: CarReserved | None, ctx: Context) -> None:
    cars.strike(ctx)


@cashier.step(pivot=True, within=timedelta(seconds=30))
async def charge(flight: FlightReserved, room: HotelReserved, car: CarReserved, ctx: Context) -> TripPaid:
    """Three events in: called once, when the trip is whole. The point of no return: what is paid is never taken back."""
    if flight.card == "declined":
        raise Rejected("the card was declined")
    cents = flight.cents + room.cents + car.cents
    payments.write(ctx, flight.card, cents)
    return TripPaid(trip=flight.trip, cents=cents)


@charge.compensate
async def refund(flight: FlightReserved, room: HotelReserved, car: CarReserved, done: TripPaid | None, ctx: Context) -> None:
    payments.strike(ctx)


@cashier.step(effects=False)
async def confirm(paid: TripPaid) -> TripConfirmed:
    return TripConfirmed(trip=paid.trip, cents=paid.cents)


AGENTS = (airline, hotel, rental, cashier)
trip = Saga("trip", starts=TripRequested, completes=TripConfirmed, deadline=timedelta(minutes=5), intake="trip.requests")


def all_or_nothing(history: HistoryPlayed) -> None:
    """A confirmed trip has a seat, a room, a car, and is paid to the cent; of any other nothing is left."""
    for saga in history.sagas:
        parts = [desk.of(saga.id) for desk in (flights, hotels, cars)]
        paid = payments.of(saga.id)
        if saga.verdict == "completed":
            assert [len(each) for each in parts] == [1, 1, 1], f"confirmed, and reserved is {parts}"
            assert paid == [sum(map(sum, parts))], f"confirmed, {paid} was paid for {parts}"
        else:
            assert not any((*parts, paid)), f"{saga.verdict}, and {parts} and {paid} are left"


@contextmanager
def in_memory() -> Generator[None]:
    """Books of our own, for as long as somebody verifies."""
    former, Desk.place = Desk.place, "file:trip?mode=memory&cache=shared"
    with closing(sqlite3.connect(Desk.place, uri=True)):
        yield
    Desk.place = former


def wish(**changes: object) -> TripRequested:
    """A request, with some of it changed."""
    return TripRequested.model_validate({"trip": "t", "city": "Lisbon", "nights": 3, "card": "good", **changes})


verification = Verification(
    agents=AGENTS,
    sagas=[trip],
    starts={
        "a trip": wish(),
        "no flight": wish(city="Atlantis"),
        "no room": wish(nights=21),
        "no money": wish(card="declined"),
        "two at once": [wish(), wish(card="declined")],
    },
    invariant=all_or_nothing,
    around=in_memory,
)
