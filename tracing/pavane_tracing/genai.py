"""GenAI: the span of a step that works with a model, under the names of OpenTelemetry's GenAI conventions.

They are in development, in a repository of their own; nothing outside this module spells one.
Source: https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-agent-spans.md
"""

import json
from collections.abc import Iterable, Mapping
from contextvars import Token
from types import TracebackType
from typing import Self

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, StatusCode

from pavane_events.errors import ConfigurationError, Problem
from pavane_tracing.attributes import Scalar, error_type
from pavane_tracing.conventions import MESSAGING
from pavane_tracing.limited import say

OPERATION = "gen_ai.operation.name"
AGENT = "gen_ai.agent.name"
MODEL = "gen_ai.request.model"
PROVIDER = "gen_ai.provider.name"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
INVOKE_AGENT = "invoke_agent"

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CAPTURED = frozenset({"true", "span_only", "span_and_event"})
_NOT_CAPTURED = frozenset({"", "false", "no_content", "event_only"})


def captures_content(said: str) -> bool:
    """Whether the value of :data:`CAPTURE` asks for messages on spans. Pavane writes none as events.

    Raises :class:`ConfigurationError` for a value that nobody knows: what is private must not hang on a slip.
    """
    value = said.strip().lower()
    if value in _CAPTURED | _NOT_CAPTURED:
        return value in _CAPTURED
    choices = "SPAN_ONLY, SPAN_AND_EVENT, EVENT_ONLY or NO_CONTENT"
    raise ConfigurationError("telemetry cannot be set up", [Problem(CAPTURE, "tracing.content", f"use {choices}")])


def invocation_attributes(agent: str, model: str, provider: str | None) -> Mapping[str, Scalar]:
    """What every ``invoke_agent`` span of one step says, beside whose saga and step it is."""
    attributes: dict[str, Scalar] = {OPERATION: INVOKE_AGENT, AGENT: agent, MODEL: model}
    if provider is not None:
        attributes[PROVIDER] = provider
    return attributes


class Invocation:
    """A span ``invoke_agent <agent>``: current within the block, ended with it, failed where the block raises.

    Without a context (nobody watches) it is nothing but the block. Belongs to one task.
    """

    __slots__ = ("_context", "_input_tokens", "_output_tokens", "_token", "span")

    def __init__(self, span: Span, context: Context | None) -> None:
        self.span = span
        self._context = context
        self._token: Token[Context] | None = None
        self._input_tokens = 0
        self._output_tokens = 0

    def __enter__(self) -> Self:
        if self._context is not None:
            self._token = attach(self._context)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        token, self._token = self._token, None
        if token is not None:
            detach(token)
        if error is not None:
            say(self.span, {MESSAGING.error_type: error_type(error)})
            self.span.set_status(StatusCode.ERROR)
        self.span.end()

    def used(self, input_tokens: int, output_tokens: int) -> None:
        """Tokens that the model took and gave, in addition to those told before."""
        self._input_tokens += input_tokens
        self._output_tokens += output_tokens
        say(self.span, {INPUT_TOKENS: self._input_tokens, OUTPUT_TOKENS: self._output_tokens})

    def given(self, texts: Iterable[str]) -> None:
        """What the agent was given, one message each. It is content: only where :func:`captures_content`."""
        self._tell(INPUT_MESSAGES, [{"role": "user", "parts": [_part(text)]} for text in texts])

    def gave(self, texts: Iterable[str]) -> None:
        """What the agent answered, one message each. It is content, too."""
        answers = [{"role": "assistant", "parts": [_part(text)], "finish_reason": "stop"} for text in texts]
        self._tell(OUTPUT_MESSAGES, answers)

    def _tell(self, key: str, messages: object) -> None:
        if self.span.is_recording():
            say(self.span, {key: json.dumps(messages, ensure_ascii=False)})


def _part(text: str) -> Mapping[str, str]:
    return {"type": "text", "content": text}
