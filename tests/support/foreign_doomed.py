"""The agent without Pavane, which is struck when its first event is on the broker and not yet committed.

``DOOM`` names the signal: KILL, and it is gone; STOP, and it is a zombie that knows nothing of it when it goes on.
"""

import os
import signal
from typing import Any

from confluent_kafka import Producer
from examples import foreign_agent


class DoomedProducer(Producer):
    """Strikes its process between produce and commit, once."""

    has_answered = was_struck = False

    def produce(self, topic: str, *args: Any, **kwargs: Any) -> None:
        super().produce(topic, *args, **kwargs)
        self.has_answered = self.has_answered or topic.endswith(foreign_agent.GIVES)

    def commit_transaction(self, timeout: float = -1) -> None:
        if self.has_answered and not DoomedProducer.was_struck:
            DoomedProducer.was_struck = True
            assert self.flush(timeout) == 0
            os.kill(os.getpid(), signal.Signals[f"SIG{os.environ['DOOM']}"])
        super().commit_transaction(timeout)


foreign_agent.__dict__["Producer"] = DoomedProducer  # the agent knows nothing of its doom
foreign_agent.main()
