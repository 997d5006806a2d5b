"""An agent that says, when it starts, whether the loop's threads have its context."""

import asyncio
from collections.abc import AsyncGenerator
from contextvars import ContextVar

from pavane import Agent
from unit.cli_toy import OrderPlaced

context = ContextVar("context", default="lost")
agent = Agent("threaded")


@agent.lifespan
async def life() -> AsyncGenerator[None]:
    context.set("kept")
    print(await asyncio.get_running_loop().run_in_executor(None, context.get), flush=True)
    yield


@agent.observe
async def look(order: OrderPlaced) -> None:
    """It is there to listen to something."""
