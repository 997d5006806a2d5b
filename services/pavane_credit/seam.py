"""Seam: the few named points at which a fault plan may step in. Without a plan each is one comparison."""

import os
import signal

from pavane import Context, EffectUndone
from pavane_credit.faults import FaultPlan
from pavane_credit.ledger import Books


class SimulatedCrash(BaseException):
    """The agent's process dies here: nothing of what its lanes had under way is committed."""


class BureauTimeout(TimeoutError):
    """The bureau did not answer in time."""


class Seam:
    """One agent's seam. What happened is noted in its ledger: a crash is played once, a refusal can be counted."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._plan: FaultPlan | None = None
        self._seed = "none"

    @property
    def plan(self) -> FaultPlan | None:
        """The plan that the agent's settings name."""
        seed = self._books.where.faults
        if seed != self._seed:
            self._seed = seed
            self._plan = None if seed == "none" else FaultPlan(seed)
        return self._plan

    def call_bureau(self, application_id: str, context: Context) -> None:
        """The bureau is called: it may time out, for a while or for good."""
        plan = self.plan
        if plan is not None and plan.times_out(application_id, context.attempt):
            raise BureauTimeout("the bureau did not answer")

    def confidence(self, application_id: str, found: float) -> float:
        """How well a score is supported: sometimes too little."""
        plan = self.plan
        return 0.5 if plan is not None and plan.lowers_confidence(application_id) else found

    def after_effect(self, application_id: str) -> None:
        """The effect is written and the answer is not: the agent may crash here, once."""
        plan = self.plan
        if plan is None or not plan.crashes(application_id) or not self._books.ledger.note("crashed", application_id):
            return
        if self._books.where.crash == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise SimulatedCrash(application_id)

    def before_undo(self, application_id: str, context: Context) -> None:
        """An undo begins: it may fail twice before it works."""
        plan = self.plan
        if plan is not None and plan.undo_fails(application_id) and context.attempt <= 2:
            raise ConnectionError("the register does not answer")

    def after_undo(self, application_id: str, context: Context, kind: str) -> None:
        """An undo is done: a zombie may now do the effect again, and the fence must refuse it."""
        plan = self.plan
        if plan is None or not plan.comes_back(application_id):
            return
        try:
            self._books.ledger.do(context, application_id, kind)
        except EffectUndone:
            self._books.ledger.note("refused", application_id)
