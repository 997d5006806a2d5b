"""The agent without Pavane, which dies by ``kill -9`` when its first event is on the broker and not yet committed."""

import os
import signal
from typing import Any

from confluent_kafka import Producer
from examples import foreign_agent


class DoomedProducer(Producer):
    """Kills its process between produce and commit."""

    has_answered = False

    def produce(self, topic: str, *args: Any, **kwargs: Any) -> None:
        super().produce(topic, *args, **kwargs)
        self.has_answered = self.has_answered or topic.endswith(foreign_agent.GIVES)

    def commit_transaction(self, timeout: float = -1) -> None:
        if self.has_answered:
            assert self.flush(timeout) == 0
            os.kill(os.getpid(), signal.SIGKILL)
        super().commit_transaction(timeout)


vars(foreign_agent)["Producer"] = DoomedProducer  # the agent knows nothing of its doom
foreign_agent.main()
