"""What axe finds on a page that keeps people from reading or using it."""

from __future__ import annotations

from collections.abc import Collection

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

ALL = ("minor", "moderate", "serious", "critical")


def barriers(page: Page, without: str = "", impacts: Collection[str] = ALL) -> list[tuple[str, str]]:
    """(rule, an element that breaks it) of every rule of axe that is broken.

    Args:
        page: shown in the colours and at the width that are meant.
        without: a selector of what is left out.
        impacts: of the rules that count.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate(
        """async (without) => {
            const context = without ? { include: [["html"]], exclude: [[without]] } : document;
            const { violations } = await axe.run(context, { resultTypes: ["violations"], preload: false });
            return violations.map((one) => [one.id, one.impact, one.nodes[0].html.slice(0, 200)]);
        }""",
        without,
    )
    return [(rule, html) for rule, impact, html in found if impact in impacts]
