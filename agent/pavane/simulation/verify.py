"""Verify: explore a choreography's histories, shorten what is wrong, and tell it."""

from pavane.cli.check import findings_of
from pavane.cli.targets import Targets, load_verification
from pavane.plan import plan_of
from pavane.simulation.crew import Alone, Several
from pavane.simulation.explore import Bounds, Crew, Explorer, Survey, Tell, silently
from pavane.simulation.player import Job, Outcome, Player
from pavane.simulation.points import Faults
from pavane.simulation.report import Finding, Interrupted, Report, VerificationFailed
from pavane.simulation.verification import Verification, names_of
from pavane_events.errors import ConfigurationError, DeclarationError, Problem
from pavane_saga.checks import MAY_BE_ELSEWHERE
from pavane_saga.manifest import Directory, SagaPlan


def explore(
    verification: Verification,
    *,
    name: str | None,
    processes: int,
    bounds: Bounds,
    seed: int,
    tell: Tell = silently,
    lanes: int | None = None,
) -> Report:
    """Look at histories until the bounds are reached, or one is wrong. ``name``: where other processes find it.

    Raises :class:`DeclarationError` where agents and sagas cannot run as they are declared: nothing would be played;
    :class:`Interrupted` where somebody stops it.
    """
    _check_declared(verification)
    crew: Crew = Alone(verification) if name is None or processes == 1 else Several(name, processes, load_verification)
    survey = Survey(seed)
    try:
        Explorer(verification, crew, bounds, survey, tell, lanes).run()
    except KeyboardInterrupt:
        if survey.wrong:
            raise
        raise Interrupted(Report.of(survey, processes, [], verification.possible.unbounded)) from None
    findings = [told(verification, survey.wrong[0])] if survey.wrong else []
    return Report.of(survey, processes, findings, verification.possible.unbounded)


def verify(
    verification: Verification | str,
    *,
    histories: int | None = 1_000,
    seconds: float | None = None,
    seed: int = 0,
    processes: int = 1,
    lanes: int | None = None,
) -> Report:
    """Look at so many histories of a choreography (and for no longer than so many seconds); for a test of your own.

    Every single fault first, then pairs of faults, then faults by lot: the same seed, the same histories. More than one
    process needs the verification's name, ``"package.module:verification"``. ``lanes``: of each agent and of the
    coordinator; None: one, and by lot two in a third of the histories. Raises :class:`VerificationFailed`, an
    AssertionError that tells the shortest history found. With neither bound every pair of faults is tried. Raises
    :class:`ValueError` for bounds under which nothing would be played: it would pass and prove nothing.
    """
    _check(histories, seconds, processes, lanes)
    name = verification if isinstance(verification, str) else None
    found = load_verification(verification) if isinstance(verification, str) else verification
    if processes > 1 and name is None:
        raise ValueError("several processes must find the verification: give its name, 'package.module:verification'")
    report = explore(found, name=name, processes=processes, bounds=Bounds(histories, seconds), seed=seed, lanes=lanes)
    if report.findings:
        raise VerificationFailed(report, name)
    return report


def _check(histories: int | None, seconds: float | None, processes: int, lanes: int | None) -> None:
    wrong: list[str] = []
    if histories is not None and histories < 1:
        wrong.append(f"histories={histories}: at least 1, or None for no such bound")
    if seconds is not None and not seconds > 0:  # nor is NaN
        wrong.append(f"seconds={seconds}: more than 0, or None for no such bound")
    if processes < 1:
        wrong.append(f"processes={processes}: at least 1")
    if lanes is not None and lanes < 1:
        wrong.append(f"lanes={lanes}: at least 1")
    if wrong:
        raise ValueError(f"nothing would be played: {'; '.join(wrong)}")


def _check_declared(verification: Verification) -> None:
    """What `pavane run` would refuse of these agents and sagas, and, as nobody is elsewhere, what would have it wait for ever.

    That a saga cannot complete by what its steps wait for, as where two joins wait for each other, is no hindrance: it is let
    in, and its deadline is played.
    """
    found = Targets(tuple(verification.agents), tuple(verification.sagas))
    errors = [each for each in findings_of(found) if each.severity == "error"]
    wrong = [each for each in errors if each.code not in MAY_BE_ELSEWHERE]
    closed = set[str]() if wrong else _nobody_gives(verification)
    problems = [Problem(each.where, each.code, each.message) for each in (errors if closed else wrong)]
    if closed and not problems:
        message = "it leads to a saga's end, and nobody gives it: nothing is let in until somebody does; name that agent, too"
        problems = [Problem(each, "event.unproduced", message) for each in sorted(closed)]
    if problems:
        raise DeclarationError("this cannot run as it is declared", problems)


def _nobody_gives(verification: Verification) -> set[str]:
    """The events for which the coordinator waits before it lets anything in."""
    plans = {saga.name: SagaPlan.of(saga) for saga in verification.sagas}
    directory = Directory({agent.name: plan_of(agent).manifest for agent in verification.agents}, plans)
    return {each for plan in plans.values() for each in directory.leading_to(plan.completes, plan)[1]}


def replay(verification: Verification, job: Job) -> tuple[Outcome, list[str]]:
    """Play one history, and tell it.

    Raises :class:`ConfigurationError` where there is no such scenario, or a fault's point does not come by, and
    :class:`DeclarationError` where agents and sagas cannot run as they are declared.
    """
    _check_declared(verification)
    problems = [_unknown(verification, name) for name in names_of(job.scenario) if name not in verification.scenarios]
    if problems:
        raise ConfigurationError("that history cannot be played", problems)
    player = Player(verification, "all")
    try:
        outcome = player.play(job)
        faults: Faults = outcome.struck if job.seed is not None else job.faults
        missed = [
            Problem(str(each), "replay.missed", "it never comes to that") for each in faults if each not in outcome.struck
        ]
        if missed:
            raise ConfigurationError("that history cannot be played", missed)
        return outcome, player.tell(job, faults)
    finally:
        player.close()


def _unknown(verification: Verification, scenario: str) -> Problem:
    return Problem(scenario, "replay.scenario", f"no such scenario: there are {', '.join(verification.scenarios)}")


def told(verification: Verification, outcome: Outcome) -> Finding:
    """A wrong history as a finding, with its story."""
    _, story = replay(verification, outcome.job)
    first = outcome.violations[0]
    return Finding(first.code, first.message, str(outcome.job), story)
