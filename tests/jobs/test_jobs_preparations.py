"""What a process needs first runs before it, is built with it, and hears of its failure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from jobs import Job
from toolkit.config.document import Document
from toolkit.config.plugins import ProcessPlugin


class Step(ProcessPlugin):
    """A process that writes down when it runs."""

    log: Any = None
    fails: bool = False
    hears: bool = True
    first: Any = ()

    def preparations(self) -> Iterable[ProcessPlugin]:
        return tuple(self.first)

    def plan(self) -> list[str]:
        return [f"does {self.type}"]

    def build(self, job: Any) -> Any:
        return Hearing(self) if self.hears else Running(self)


class Running:
    def __init__(self, step: Step) -> None:
        self.step = step

    def run(self) -> None:
        self.step.log.append(self.step.type)
        if self.step.fails:
            raise ValueError(f"{self.step.type} failed")


class Hearing(Running):
    def on_error(self, error: BaseException) -> None:
        self.step.log.append(f"{self.step.type} heard")


def job(*steps: Step) -> Job:
    return Job("mine", "extension", {}, Document({}), steps)


def test_preparations_run_before_their_process_in_order() -> None:
    log: list[str] = []
    first = [Step(type="a", log=log), Step(type="b", log=log)]
    job(Step(type="z", log=log), Step(type="c", log=log, first=first)).run()
    assert log == ["z", "a", "b", "c"]


def test_a_failed_preparation_ends_the_job_and_all_hear_of_it() -> None:
    log: list[str] = []
    with pytest.raises(ValueError, match="a failed"):
        job(Step(type="c", log=log, first=[Step(type="a", log=log, fails=True)])).run()
    assert log == ["a", "a heard", "c heard"]


def test_one_without_on_error_fails_with_its_own_error_and_the_others_hear_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log: list[str] = []
    with pytest.raises(ValueError, match="a failed"):
        job(Step(type="a", log=log, fails=True, hears=False), Step(type="c", log=log)).run()
    assert log == ["a", "c heard"]
    assert capsys.readouterr().err == ""


def test_the_plan_names_them() -> None:
    lines = job(Step(type="c", first=[Step(type="a")])).plan()
    assert lines == ["job 'mine' (extension)", "process 0: c", "  before it, a:", "    does a", "  does c"]
