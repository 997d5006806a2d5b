"""The agent without Pavane, which dies by ``kill -9`` when its first event is on the broker and not yet committed."""

import os
import signal
from collections.abc import Sequence

from examples import foreign_agent


class DoomedProducer(foreign_agent.Producer):
    """Kills its process between produce and commit."""

    answered = False

    def produce(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int, *, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        super().produce(topic, value, key, partition, headers=list(headers))
        self.answered = self.answered or topic.endswith(foreign_agent.GIVES)

    def commit_transaction(self, timeout: float) -> None:
        if self.answered:
            assert self.flush(timeout) == 0
            os.kill(os.getpid(), signal.SIGKILL)
        super().commit_transaction(timeout)


foreign_agent.Producer = DoomedProducer  # type: ignore[misc,assignment]  # the agent itself knows nothing of its doom
foreign_agent.main()
