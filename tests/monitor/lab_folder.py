"""The folder of runs that the tests of the pages look at."""

from __future__ import annotations

from pathlib import Path

from monitor_folders import made

HOSTILE = "</script><script>alert(1)</script>{{ 7*7 }}`${7*7}`\x1b[31m"
NOTE = "<img src=x onerror=alert(1)> {{ constructor.constructor('alert(2)')() }}"
TAG = "javascript:alert(3)"
MANY = 60


def fill(root: Path) -> None:
    """Write MANY runs of a series, and four more."""
    made(root / "alpha", "alpha", "adfa", tags=("good",), note="the first one", lr=1e-3)
    made(root / "beta", "beta", "dfa", seed=1, rate=0.3, days=1, device="benches/slm_camera.toml")
    made(root / "broken", "broken", "adfa", status="fault", days=2)
    made(root / "hostile", HOSTILE, HOSTILE, tags=(TAG,), note=NOTE, days=3)
    for number in range(MANY):
        made(root / f"series/old-{number:02}", f"old-{number:02}", "ridge", seed=number, epochs=1, days=-number - 1)
