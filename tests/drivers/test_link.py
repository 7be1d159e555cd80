"""Trust and deadlines: when a wire may be used."""

from __future__ import annotations

import threading

import pytest

from drivers.links.link import Deadline, Trust, checked_timeout
from hil.errors import ConfigError, DirtySession, LinkTimeout, OutOfRange


def fail(trust: Trust, error: BaseException) -> None:
    with trust.use():
        raise error


def dirty(reason: str = "a fault") -> Trust:
    trust = Trust("test")
    trust.lose(reason)
    return trust


def test_a_fault_of_the_wire_makes_it_dirty_and_nothing_else_does() -> None:
    trust = Trust("test")
    with pytest.raises(OutOfRange):
        fail(trust, OutOfRange("refused before anything was sent"))
    assert not trust.dirty
    with pytest.raises(LinkTimeout):
        fail(trust, LinkTimeout("no answer"))
    assert trust.dirty
    with pytest.raises(DirtySession, match="no answer") as caught:
        fail(trust, AssertionError("must not be reached"))
    assert caught.value.where == "test"


def test_the_first_fault_is_the_one_that_is_told() -> None:
    trust = dirty("the cause")
    trust.lose("a consequence")
    with pytest.raises(DirtySession, match="the cause"):
        fail(trust, AssertionError)


def test_only_an_emptied_wire_may_identify_and_only_success_cleans_it() -> None:
    trust = dirty()
    with pytest.raises(DirtySession, match="in flight"), trust.reidentifying():
        raise AssertionError("must not be reached")
    trust.emptied("cleared")
    with pytest.raises(DirtySession):
        fail(trust, AssertionError("must not be reached"))
    with pytest.raises(RuntimeError), trust.reidentifying():
        raise RuntimeError
    assert trust.dirty
    with trust.reidentifying(), trust.use():
        pass
    assert not trust.dirty


def test_a_fault_while_identifying_keeps_it_dirty() -> None:
    trust = dirty()
    trust.emptied("cleared")
    with trust.reidentifying():
        with pytest.raises(LinkTimeout):
            fail(trust, LinkTimeout("again"))
        with pytest.raises(DirtySession):
            fail(trust, AssertionError("must not be reached"))
    assert trust.dirty


def test_another_thread_waits_for_the_transaction_to_end() -> None:
    trust, order = Trust("test"), []

    def other() -> None:
        with trust.transaction():
            order.append("other")

    thread = threading.Thread(target=other)
    with trust.transaction(), trust.transaction():
        thread.start()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


def test_deadline() -> None:
    assert 9 < Deadline.after(10.0).left_s() <= 10
    assert 19 < Deadline.after(10.0, size_bytes=100, bytes_per_s=10.0).left_s() <= 20
    with pytest.raises(TimeoutError):
        Deadline.after(-1.0).left_s()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e6])
def test_a_wait_must_end(seconds: float) -> None:
    with pytest.raises(ConfigError, match="test"):
        checked_timeout(seconds, "test")
    assert checked_timeout(2, "test") == 2.0
