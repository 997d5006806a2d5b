"""Exports spans by OTLP: one thread and one bounded queue for all services of the process, patient with the collector.

Spans of ours come encoded; the thread encodes the user's, and has all sent in requests of bounded size. What the collector
does not take now is kept in a bounded outbox, then in the spool where there is one; only then it is lost, which is told
and counted.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.util.types import AnyValue

from pavane_tracing import otlp
from pavane_tracing.batching import Batching
from pavane_tracing.courier import Courier
from pavane_tracing.endpoint import Answer, Endpoint
from pavane_tracing.forking import after_fork
from pavane_tracing.halves import halves
from pavane_tracing.lean_work import Take
from pavane_tracing.losses import Losses, log
from pavane_tracing.metrics import count_dropped, count_exported
from pavane_tracing.outbox import Outbox, Request
from pavane_tracing.patience import Patience
from pavane_tracing.span import FinishedSpan
from pavane_tracing.span_queue import Gathered, SpanQueue
from pavane_tracing.spool import Emptying, Spool
from pavane_tracing.work import SCOPE

_OUTBOX_BYTES = 16 * 1024 * 1024
_SPOOL_FROM_BYTES = 1024 * 1024
"""Where there is a spool, this much waits in memory before the rest goes to disk."""
_MOST_HALVINGS = 16
"""In a row, with nothing taken between: enough to find one span in 65,536, and who refuses all is not asked of each."""
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_LONGEST_OBEYED_S = 300.0
"""How long an endpoint may have it wait: what it says may be wrong, and is not taken back."""
_LOOK_AGAIN_S = 10.0
"""When a spool is looked at again that was empty, or another process's to empty: others may have left something there."""

EncodeOthers = Callable[[Sequence[FinishedSpan]], bytes]
"""Encodes the SDK's spans as an export request."""


class SpanExport:
    """Takes spans from any thread, and exports them from its own. Forked children get a thread and a queue of their own."""

    def __init__(
        self,
        endpoint: Endpoint,
        encode_others: EncodeOthers,
        *,
        batching: Batching | None = None,
        spool: Spool | None = None,
        first_pause_s: float = _FIRST_PAUSE_S,
        look_again_s: float = _LOOK_AGAIN_S,
    ) -> None:
        self._endpoint = endpoint
        self._encode_others = encode_others
        self._batching = batching or Batching()
        self._spool = spool
        self._first_pause_s = first_pause_s
        self._look_again_s = look_again_s
        self._emptying: Emptying | None = None
        self._scope = otlp.scope(SCOPE)
        self._resources: dict[str, bytes] = {}
        self._queue = SpanQueue(self._batching.most_waiting, self._batching.per_request)
        self._begin()
        after_fork(self._begin)

    def taker(self, service: str, resource: Mapping[str, AnyValue]) -> Take:
        """What takes the encoded spans of a service, which is described by its first call.

        Neither it nor :meth:`add` ever blocks; where too many wait, a span is dropped and counted.
        """
        self._resources.setdefault(service, otlp.resource(resource))
        return self._queue.lot(service).take

    def add(self, span: FinishedSpan, /) -> None:
        """Export a span of the SDK's that has ended."""
        self._queue.add(span)

    @property
    def waiting(self) -> int:
        """How many spans are in no request yet."""
        return self._queue.waiting

    def flush(self, timeout_s: float) -> bool:
        """Send everything that has come so far, now; False where the collector did not take it in time. It blocks."""
        with self._state:
            self._asked += 1
            mine = self._asked
            self._queue.wake.set()
            return self._state.wait_for(lambda: self._answered >= mine, timeout_s)

    def shutdown(self, timeout_s: float) -> bool:
        """Flush, and end the thread. What is not taken in time goes to the spool, or is lost. Idempotent."""
        give_up = time.monotonic() + timeout_s
        flushed = self.flush(timeout_s)
        self._stopping = True
        self._queue.wake.set()
        if flushed:
            self._sender.join(max(0.0, give_up - time.monotonic()))
        left = self._encode() + self._outbox.take()
        if left:
            self._losses.hear(f"{self._endpoint.url} has not answered by the end of the process")
        for request in left:
            self._put_aside(request)
        self._tell_losses()
        return flushed or (self._spool is not None and not self._lost)

    def _begin(self) -> None:
        self._queue.begin()
        self._outbox = Outbox()
        self._lost = 0
        if self._emptying is not None:
            self._emptying.forget()
        self._emptying = None
        self._next_look = 0.0 if self._spool is not None else math.inf
        """When to look into the spool: at once, for an earlier process may have left something."""
        self._spools_turn = False
        self._state = threading.Condition()
        self._asked = self._heard = self._answered = 0
        """Flushes that were asked for, those whose spans are requests by now, and those that are over."""
        self._failures = 0
        """In a row."""
        self._alone: Patience | None = None
        """Of the one request of which all of them were."""
        self._requests_taken = 0
        self._halvings = 0
        """In a row."""
        self._said = ""
        """By the endpoint, of spans that it took: it is told once."""
        self._next_try = 0.0
        self._random = random.Random()
        """Its own: who seeds the process's counts on its numbers."""
        self._all_due = time.monotonic() + self._batching.delay_s
        """When what does not fill a request is sent, too."""
        self._stopping = False
        self._losses = Losses()
        self._sender = threading.Thread(target=self._run, name="pavane-spans", daemon=True)
        self._sender.start()

    def _run(self) -> None:
        courier = Courier(self._endpoint, self._take_in)
        while not self._stopping:
            try:
                self._turn(courier)
            except Exception:  # whatever it is, all spans of the process wait for this thread
                log.exception("the export of spans failed, and is tried again")
                time.sleep(self._first_pause_s)
        self._leave_spool()
        courier.close()

    def _turn(self, courier: Courier) -> None:
        hurried = self._gather()
        if hurried or time.monotonic() >= self._sends_at():
            self._send_one(courier.send, math.inf if hurried else time.monotonic())
        self._bound_outbox()
        self._tell_losses()
        self._answer_flushes()
        self._queue.wake.wait(self._pause_s())
        self._queue.wake.clear()

    def _take_in(self) -> None:
        """While an answer takes its time: what comes meanwhile is gathered, or there would soon be no room for it."""
        if not self._stopping:
            self._gather()
            self._bound_outbox()
            self._tell_losses()

    def _pause_s(self) -> float:
        """None while there is something to send: after each request, what has come meanwhile is gathered."""
        return max(0.01 if self._failures else 0.0, min(self._sends_at(), self._all_due) - time.monotonic())

    def _gather(self) -> bool:
        """Make requests of what waits; whether a flush hurries them."""
        asked = self._asked
        hurried = asked > self._heard
        all_due = hurried or time.monotonic() >= self._all_due
        if all_due:
            self._all_due = time.monotonic() + self._batching.delay_s
        room = None if hurried or self._spool is not None or self._is_away() else _OUTBOX_BYTES - self._outbox.bytes
        if room is None or room > 0:  # else it goes on waiting in the queue, which is bounded, too
            for request in self._encode(full=not all_due, most_bytes=room):
                self._outbox.add(request)
        if hurried:
            self._heard = asked
            self._outbox.await_all()
        return hurried

    def _is_away(self) -> bool:
        """Whether the collector takes nothing now, as far as is known."""
        return self._failures > 0 and self._alone is None

    def _answer_flushes(self) -> None:
        """They are over when what they wait for is, and nothing is known to be in the spool."""
        if not self._outbox.awaited and self._next_look > time.monotonic():
            with self._state:
                self._answered = self._heard
                self._state.notify_all()

    def _encode(self, *, full: bool = False, most_bytes: int | None = None) -> list[Request]:
        """Everything that waits, as requests, or full ones only; the thread and whoever ends it may both ask."""
        return [self._request(each) for each in self._queue.gather(full=full, most_bytes=most_bytes)]

    def _request(self, gathered: Gathered) -> Request:
        body: list[bytes] = []
        for service, spans in gathered.ours:
            body += otlp.resource_spans(self._resources.get(service, b""), self._scope, spans)
        others, count = self._others_encoded(gathered.others)
        return Request(b"".join([*body, *others]), gathered.count + count)

    def _others_encoded(self, spans: Sequence[FinishedSpan]) -> tuple[list[bytes], int]:
        """The SDK's spans, encoded, and how many they are. What users put into one may not be encodable: it is lost alone."""
        if not spans:
            return [], 0
        try:
            return [self._encode_others(spans)], len(spans)
        except Exception as error:  # whatever users put into their spans
            if len(spans) == 1:
                self._losses.hear(f"a span cannot be encoded: {error!r}")
                self._lose(1)
                return [], 0
        middle = len(spans) // 2
        first, first_count = self._others_encoded(spans[:middle])
        second, second_count = self._others_encoded(spans[middle:])
        return first + second, first_count + second_count

    def _send_one(self, send: Callable[[bytes], Answer], now: float) -> None:
        """A request of the outbox and one of the spool in turn; before any of the spool what a flush waits for."""
        request = self._outbox.first(now)
        from_spool = request is None or (self._spools_turn and not self._outbox.awaited)
        self._spools_turn = False
        if (from_spool and self._send_spooled(send)) or request is None:
            return
        answer = send(request.body)
        if self._settled(answer, request):
            self._outbox.settle(request)
            self._spools_turn = True
        elif answer.reached:
            self._outbox.put_off(request)
        self._wait_after(answer, request)

    def _send_spooled(self, send: Callable[[bytes], Answer]) -> bool:
        """Whether there was one to send. If not, or where another process empties it, the spool is looked at again later."""
        if self._spool is None or time.monotonic() < self._next_look:
            return False
        emptying = self._emptying = self._emptying or self._spool.emptying()
        now = math.inf if self._heard > self._answered else time.monotonic()  # a flush waits for what was put off, too
        each = emptying.next(now) if emptying is not None else None
        if emptying is None or each is None:
            self._leave_spool()
            self._next_look = time.monotonic() + self._look_again_s
            return False
        body = each.body()
        if body is None:
            self._lose(each.spans, f"{each.path} cannot be read")
        else:
            request = Request(body, each.spans, each.patience)
            answer = send(body)
            if not self._settled(answer, request):
                if answer.reached:
                    emptying.put_off(each)
                self._leave_spool()  # to others, whose collector may answer
                self._wait_after(answer, request)
                return True
        emptying.remove(each)
        return True

    def _leave_spool(self) -> None:
        emptying, self._emptying = self._emptying, None
        if emptying is not None:
            emptying.end()

    def _settled(self, answer: Answer, request: Request) -> bool:
        """Whether a request is over: taken, refused for good, in halves, or put off too often while others were taken."""
        if answer.again:
            self._losses.hear(answer.why)
            if not answer.reached or request.patience.put_off(self._requests_taken, self._first_pause_s):
                return False
            self._lose(request.spans, "a request was put off again and again while others were taken")
            return True
        if answer.parts and self._halve(request):
            if answer.too_large:
                self._queue.bound(len(request.body) // 2)
            self._losses.hear(answer.why)
            return True
        if answer.taken:
            self._requests_taken += 1
            self._halvings = 0
        rejected = min(max(0, answer.rejected), request.spans) if answer.taken else request.spans
        self._arrived(request.spans - rejected, whole=not rejected)
        if rejected:
            self._losses.hear(
                f"the endpoint rejected spans: {answer.why or 'no reason given'}" if answer.taken else answer.why
            )
            self._lose(rejected)
        elif answer.why and answer.why != self._said:
            log.warning("the OTLP endpoint took spans, and says: %s", answer.why)
            self._said = answer.why
        return True

    def _halve(self, request: Request) -> bool:
        """Whether its halves have their turn now: the endpoint may take one of them."""
        parts = halves(request.body) if self._halvings < _MOST_HALVINGS else []
        if parts:
            self._halvings += 1
            self._outbox.divide(request, parts)
        return bool(parts)

    def _wait_after(self, answer: Answer, request: Request) -> None:
        """When to try again, where a request was not taken."""
        if not answer.again:
            return
        alone = answer.reached and answer.again_s is None and (not self._failures or self._alone is request.patience)
        self._alone = request.patience if alone else None
        pause_s = min(_LONGEST_PAUSE_S, self._first_pause_s * 2**self._failures) * self._random.uniform(0.8, 1.2)
        if answer.again_s is not None:
            pause_s = min(_LONGEST_OBEYED_S, max(pause_s, answer.again_s))
        self._failures = min(self._failures + 1, 16)
        self._next_try = time.monotonic() + pause_s

    def _sends_at(self) -> float:
        """When the next request may be sent. One that alone is not taken holds up no other; when two are not, none is."""
        if self._alone is not None:
            other = self._outbox.first(time.monotonic())
            if other is not None and other.patience is not self._alone:
                return 0.0
        return max(self._next_try, min(self._outbox.due, self._next_look))

    def _arrived(self, spans: int, *, whole: bool) -> None:
        """The endpoint has answered for good, and taken so many. Losses are over when it takes a ``whole`` request."""
        self._failures = 0
        self._alone = None
        self._next_try = 0.0
        if spans:
            count_exported(spans)
            if whole:
                self._losses.arrive()

    def _bound_outbox(self) -> None:
        """What is too much to wait in memory goes to the spool, the latest first, or is lost. Where the collector takes what a
        flush waits for, that stays, and without a spool all does: no more is gathered than there is room for."""
        if self._spool is None and not self._is_away():
            return
        flushing = self._outbox.awaited and not self._failures
        for request in self._outbox.beyond(_OUTBOX_BYTES if self._spool is None or flushing else _SPOOL_FROM_BYTES):
            self._put_aside(request)

    def _put_aside(self, request: Request) -> None:
        why = self._spool.put(request.body, request.spans) if self._spool is not None else None
        if self._spool is None or why is not None:
            self._lose(request.spans, why)
        else:
            self._next_look = 0.0

    def _lose(self, spans: int, why: str | None = None) -> None:
        self._lost += spans
        self._losses.lose(spans, why)
        count_dropped(spans)

    def _tell_losses(self) -> None:
        """Spans that came while too many waited."""
        overflow = self._queue.take_overflow()
        if overflow:
            self._losses.hear("spans come faster than they are sent")
            self._lose(overflow)
