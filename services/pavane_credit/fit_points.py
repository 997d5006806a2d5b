"""How the points were found: ``python -m pavane_credit.fit_points`` prints the table and judges it on held-out rows.

The standard way of scorecards: bins by weight of evidence, a logistic regression over them, scaled so that forty points
double the odds. Fitted on about 70 % of the rows, chosen by a hash of the application's id; judged on the others only.

With ``--check`` the table is not printed, and the exit status is 1 where ``points.py`` says something else.
"""

import argparse
import csv
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import SimpleNamespace
from typing import cast

from pavane_credit.bins import EDGES, FACTORS, Factors, bin_of
from pavane_credit.points import APPROVAL_SCORE, BASE, POINTS, RARE, score

POINTS_TO_DOUBLE = 40
EVEN_ODDS_SCORE = 540
_SMOOTHING = 4.0
_RIDGE = 1.0
_ROUNDS = 12
_RARE_SHARE = 0.055

Row = Mapping[str, str]
Table = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """How the table does on rows it was not found on."""

    rows: int
    auc: float
    base_rate: float
    approved: float
    approved_repaid: float


def read_rows() -> list[Row]:
    """The packaged applications, outcome included."""
    text = (files("pavane_credit") / "data" / "german-credit.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def held_out(row: Row) -> bool:
    """Whether a row is kept for judging: three in ten, by a hash of its id."""
    return hashlib.sha256(row["application_id"].encode()).digest()[0] % 10 < 3


def binned(row: Row) -> dict[str, str]:
    """A row's bins by factor."""
    return {factor: bin_of(factor, int(row[factor]) if factor in EDGES else row[factor]) for factor in FACTORS}


def factors_of(row: Row) -> Factors:
    """A row as the score sees it."""
    values = {name: int(value) if name in EDGES else value for name, value in row.items() if name in FACTORS}
    return cast("Factors", SimpleNamespace(**values))


def fit(rows: Sequence[Row]) -> tuple[int, Table, dict[str, list[str]]]:
    """Base, points by factor and bin, and the rare bins, found on these rows."""
    bins = [binned(row) for row in rows]
    good = [row["repaid"] == "yes" for row in rows]
    evidence = _weights_of_evidence(bins, good)
    weights = _logistic([[1.0, *(evidence[factor][each[factor]] for factor in FACTORS)] for each in bins], good)
    scale = POINTS_TO_DOUBLE / math.log(2)
    table = {
        factor: {name: round(scale * weight * value) for name, value in sorted(evidence[factor].items())}
        for factor, weight in zip(FACTORS, weights[1:], strict=True)
    }
    rare = {
        factor: sorted(name for name in evidence[factor] if _count(bins, factor, name) < _RARE_SHARE * len(bins))
        for factor in FACTORS
    }
    return round(EVEN_ODDS_SCORE + scale * weights[0]), table, {name: found for name, found in rare.items() if found}


def judge(rows: Sequence[Row]) -> Judgement:
    """The table in use, on these rows."""
    scored = [(score(factors_of(row)).score, row["repaid"] == "yes") for row in rows]
    approved = [good for points, good in scored if points >= APPROVAL_SCORE]
    return Judgement(
        rows=len(rows),
        auc=_auc(scored),
        base_rate=sum(good for _, good in scored) / len(scored),
        approved=len(approved) / len(scored),
        approved_repaid=sum(approved) / len(approved),
    )


def _weights_of_evidence(bins: Sequence[Mapping[str, str]], good: Sequence[bool]) -> dict[str, dict[str, float]]:
    """By factor and bin, the logarithm of how much likelier repayment is there, drawn towards 0 where rows are few."""
    total = sum(good)
    odds = total / (len(good) - total)
    found: dict[str, dict[str, float]] = {}
    for factor in FACTORS:
        counts: dict[str, list[float]] = {}
        for each, repaid in zip(bins, good, strict=True):
            counts.setdefault(each[factor], [0.0, 0.0])[0 if repaid else 1] += 1
        found[factor] = {
            name: math.log((yes + _SMOOTHING * odds / (1 + odds)) / (no + _SMOOTHING / (1 + odds)) / odds)
            for name, (yes, no) in counts.items()
        }
    return found


def _logistic(inputs: Sequence[Sequence[float]], good: Sequence[bool]) -> list[float]:
    """Ridge logistic regression by Newton's method; the intercept is not drawn to 0."""
    size = len(inputs[0])
    weights = [0.0] * size
    for _ in range(_ROUNDS):
        gradient = [0.0 if i == 0 else -_RIDGE * weights[i] for i in range(size)]
        hessian = [[(_RIDGE if i == j and i > 0 else 0.0) for j in range(size)] for i in range(size)]
        for row, repaid in zip(inputs, good, strict=True):
            chance = 1 / (1 + math.exp(-sum(w * x for w, x in zip(weights, row, strict=True))))
            spread = chance * (1 - chance)
            for i, x in enumerate(row):
                gradient[i] += (repaid - chance) * x
                for j in range(i + 1):
                    hessian[i][j] += spread * x * row[j]
        for i in range(size):
            for j in range(i):
                hessian[j][i] = hessian[i][j]
        weights = [w + step for w, step in zip(weights, _solve(hessian, gradient), strict=True)]
    return weights


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gaussian elimination with partial pivoting."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    solution = [0.0] * size
    for i in reversed(range(size)):
        rest = sum(rows[i][j] * solution[j] for j in range(i + 1, size))
        solution[i] = (rows[i][size] - rest) / rows[i][i]
    return solution


def _auc(scored: Iterable[tuple[int, bool]]) -> float:
    """The chance that one who repaid scores above one who did not; a tie counts half."""
    pairs = list(scored)
    good = [points for points, repaid in pairs if repaid]
    bad = [points for points, repaid in pairs if not repaid]
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    return wins / (len(good) * len(bad))


def _count(bins: Sequence[Mapping[str, str]], factor: str, name: str) -> int:
    return sum(each[factor] == name for each in bins)


def literal(base: int, table: Table, rare: Mapping[str, list[str]]) -> str:
    """What is pasted into ``points.py``, to be laid out by ``ruff format``."""
    return "\n".join(
        [
            f"BASE = {base}",
            f"POINTS: Mapping[str, Mapping[str, int]] = {json.dumps(table)}",
            f"RARE: Mapping[str, list[str]] = {json.dumps(rare)}",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is found and how it does; only the figures for held-out rows judge it. See the module for ``--check``."""
    parser = argparse.ArgumentParser(prog="python -m pavane_credit.fit_points", description="Find and judge the points.")
    parser.add_argument("--check", action="store_true", help="print no table; exit status 1 where points.py differs")
    check = bool(parser.parse_args(arguments).check)
    rows = read_rows()
    base, table, rare = fit([row for row in rows if not held_out(row)])
    if not check:
        print(literal(base, table, rare))
    if (base, table, rare) != (BASE, POINTS, RARE):
        print("points.py differs from what was found: paste the printed table (without --check) there", file=sys.stderr)
        return 1 if check else 0
    print("points.py is what the script finds")
    for name, kept in (("held-out", True), ("fitting", False)):
        found = judge([row for row in rows if held_out(row) is kept])
        print(
            f"{found.rows} {name} rows: AUC {found.auc:.3f}; approved {found.approved:.1%}, "
            f"of whom {found.approved_repaid:.1%} repaid (of all, {found.base_rate:.1%})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
