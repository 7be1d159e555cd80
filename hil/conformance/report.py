"""Report of the checks that were tried on an object.

unsafe   something may leave the computer that must not, or outputs may stay on
wrong    a measurement can be mis-assigned, invented, or not reproduced
poor     the rest of the contract
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

from hil.errors import ContractError

Grade = Literal["unsafe", "wrong", "poor"]


class Broken(Exception):
    """A check found something; its text says what."""


class NotApplicable(Exception):
    """A check that makes no sense for this object; its text says why."""


def need(truth: bool, found: str) -> None:
    """Raise Broken with `found` unless it is true."""
    if not truth:
        raise Broken(found)


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that failed.

    Args:
        grade: how grave it is.
        check: which one.
        found: what was found.
    """

    grade: Grade
    check: str
    found: str

    def __str__(self) -> str:
        return f"[{self.grade}] {self.check}: {self.found}"


@dataclass(frozen=True, slots=True)
class Report:
    """Names of the checks that passed, (name, reason) of those that do not apply, and what failed, the gravest first."""

    subject: str
    passed: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    failed: tuple[Finding, ...]

    def __str__(self) -> str:
        lines = [f"{self.subject}: {len(self.passed)} passed, {len(self.skipped)} skipped, {len(self.failed)} failed"]
        lines += [f"  {finding}" for finding in self.failed]
        return "\n".join(lines + [f"  [skipped] {name}: {why}" for name, why in self.skipped])


@dataclass
class Checklist:
    """Collects findings: `with checks("name", "grade"): need(...)`."""

    subject: str
    passed: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[Finding] = field(default_factory=list)

    @contextmanager
    def __call__(self, check: str, grade: Grade) -> Iterator[None]:
        """Run the check called `check` in this context, and note whether it failed or did not apply."""
        try:
            yield
        except NotApplicable as why:
            self.skipped.append((check, str(why)))
        except Broken as found:
            self.failed.append(Finding(grade, check, str(found)))
        except Exception as error:  # noqa: BLE001 - whatever the object under test raises is the finding
            text = " ".join(str(error).split())
            self.failed.append(Finding(grade, check, f"raised {type(error).__name__}: {text}"))
        else:
            self.passed.append(check)

    def report(self) -> Report:
        """The report of a conforming object.

        Raises:
            ContractError: something failed.
        """
        grades = get_args(Grade)
        failed = tuple(sorted(self.failed, key=lambda finding: grades.index(finding.grade)))
        report = Report(self.subject, tuple(self.passed), tuple(self.skipped), failed)
        if failed:
            raise ContractError(
                f"{len(failed)} of {len(failed) + len(self.passed)} checks failed",
                where=self.subject,
                got="".join(f"\n  {finding}" for finding in failed) + "\n",
                allowed="none",
                todo="mend them in this order",
            )
        return report
