"""What a data folder says of the cluster whose data it holds, so that no other is started on it."""

import base64
import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

_NAME = "cluster.json"


@dataclass(frozen=True, slots=True)
class ClusterCard:
    """``cluster.json``: how the cluster was last started."""

    version: str
    cluster_id: str
    brokers: int
    port: int

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The card in that folder; None where there is none."""
        try:
            return cls(**json.loads((folder / _NAME).read_text("utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, folder: Path) -> None:
        """Lay it there."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{_NAME}.partial"
        partial.write_text(json.dumps(asdict(self)), "utf-8")
        partial.replace(folder / _NAME)

    @staticmethod
    def remove(folder: Path) -> None:
        """Take it away. Nothing happens where there is none."""
        (folder / _NAME).unlink(missing_ok=True)


def new_cluster_id() -> str:
    """An id as Kafka makes them: 22 characters, and the first is no dash, or its own tools would take it for an option."""
    while (made := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return made
