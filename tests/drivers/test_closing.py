"""Everything is closed, and what is said of it is the worst of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from drivers.closing import close_all
from hil.errors import LinkError, UnsafeOutputs


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        ([None, None], None),
        ([ValueError("first"), None, ValueError("last")], "first"),
        ([LinkError("no wire"), UnsafeOutputs("an output"), LinkError("no wire either")], "an output"),
        ([KeyboardInterrupt("by hand"), None], "by hand"),
    ],
)
def test_all_are_closed_and_unsafe_outputs_come_first(errors: list[BaseException | None], raised: str | None) -> None:
    closed: list[int] = []

    def closing(number: int, error: BaseException | None) -> Callable[[], None]:
        def close() -> None:
            closed.append(number)
            if error is not None:
                raise error

        return close

    closes = [closing(number, error) for number, error in enumerate(errors)]
    if raised is None:
        close_all(closes)
    else:
        with pytest.raises(BaseException, match=raised):
            close_all(closes)
    assert closed == list(range(len(errors)))
