"""What is waited for again and again is not asked about all the time, and never slept through for long."""

from __future__ import annotations

from drivers.poll import Poll


class Waited:
    """Something that is done `takes_s` after it was begun; each question takes 0.1 ms."""

    def __init__(self) -> None:
        self.now, self.begun, self.takes_s, self.asked = 0.0, 0.0, 0.02, 0
        self.poll = Poll(lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def done(self) -> bool:
        self.now += 1e-4
        self.asked += 1
        return self.now - self.begun >= self.takes_s

    def wait(self, timeout_s: float = 1.0) -> bool:
        self.begun, self.asked = self.now, 0
        return self.poll.until(self.done, lambda: self.now - self.begun > timeout_s)

    @property
    def took_s(self) -> float:
        return self.now - self.begun


def test_few_questions_and_nothing_lost_where_it_takes_as_long_each_time() -> None:
    waited = Waited()
    assert waited.wait()
    assert waited.asked > 100
    for _ in range(20):
        assert waited.wait()
        assert waited.asked < 25
        assert waited.took_s < waited.takes_s + 2e-4


def test_what_gets_faster_is_noticed_and_one_long_wait_is_not_repeated() -> None:
    waited = Waited()
    for _ in range(6):
        waited.wait()
    waited.takes_s = 0.5
    waited.wait()
    waited.takes_s = 0.02
    waited.wait()
    assert waited.took_s < 0.021
    waited.takes_s = 0.001
    for _ in range(8):
        waited.wait()
    assert waited.took_s < 0.0025


def test_a_long_wait_is_asked_about_all_the_same() -> None:
    """Each question is a sign of life for the guardian."""
    waited = Waited()
    waited.takes_s = 3.0
    waited.wait(10.0)
    waited.wait(10.0)
    assert 13 < waited.asked < 10_000


def test_what_never_comes_ends_in_time() -> None:
    waited = Waited()
    waited.wait()
    waited.takes_s = 1e9
    assert not waited.wait(0.1)
    assert waited.took_s < 0.11
