"""The pages in a browser: filter, sort, notes, comparison, hostile texts, widths, colours, keyboard, accessibility."""

from __future__ import annotations

import json
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from barriers import barriers
from browsing import CHROMIUM, NONE, Served, Visitor, visitor
from lab_folder import HOSTILE, MANY, NOTE, TAG
from playwright.sync_api import Browser, expect

from hil.monitor.watching import key

pytestmark = [
    pytest.mark.timeout(400), pytest.mark.skipif(not CHROMIUM, reason=NONE), pytest.mark.xdist_group("monitor in a browser"),
]  # fmt: skip
expect.set_options(timeout=20_000)  # a busy machine
WIDTHS = (1400, 390)
WHOLE = """[...document.querySelectorAll(".chart svg")].every((drawn) => {
    const { width, height } = drawn.getBoundingClientRect(), chart = drawn.closest(".chart");
    return !chart.clientWidth || Math.abs(width - chart.clientWidth) < 2 && Math.abs(height - chart.clientHeight) < 2
        && Math.abs(width - drawn.getAttribute("width")) < 2; })"""  # a chart that is shown is not cut, and fills its card
ALIKE = "table.runs tbody tr:nth-child(n+6)"  # of "series": rows that differ in their texts alone, and axe takes its time


def names(visit: Visitor) -> list[str]:
    return visit.page.locator("td.of-name a").all_inner_texts()


def test_the_table_is_filtered_sorted_and_paged(visit: Visitor) -> None:
    page = visit.open()
    expect(page.locator("p.note").first).to_contain_text(f"{MANY + 4} entries")
    expect(page.locator("td.of-name a")).to_have_count(50)
    assert names(visit)[1:4] == ["broken", "beta", "alpha"]  # the newest first
    page.get_by_role("button", name="Next").click()
    expect(page.locator("td.of-name a")).to_have_count(MANY + 4 - 50)
    page.get_by_label("Search").fill("RIDGE old-1")
    expect(page.locator("td.of-name a")).to_have_count(10)
    page.get_by_role("button", name="Name").click()
    expect(page.locator("th.of-name")).to_have_attribute("aria-sort", "ascending")
    expect(page.locator("td.of-name a").first).to_have_text("old-10")
    page.get_by_role("button", name="Name").click()
    expect(page.locator("td.of-name a").first).to_have_text("old-19")
    page.locator("td.of-name a").first.click()
    page.wait_for_selector(".run-head")
    page.go_back()
    expect(page.locator("td.of-name a").first).to_have_text("old-19")  # the filter is as it was
    page.get_by_label("Search").fill("")
    page.get_by_role("combobox", name="State", exact=True).select_option("fault")
    expect(page.locator("td.of-name a")).to_have_text(["broken"])
    page.get_by_role("combobox", name="State", exact=True).select_option("")
    page.get_by_role("combobox", name="Tag", exact=True).select_option("good")
    expect(page.locator("td.of-name a")).to_have_text(["alpha"])


def test_tags_and_a_note_are_edited_in_place_by_keyboard(visit: Visitor, folder: Path) -> None:
    page = visit.open()
    page.get_by_role("button", name="Edit tags and note of beta").press("Enter")
    expect(page.get_by_label("Tags, separated by commas")).to_be_focused()
    page.keyboard.type("for the paper, second")
    page.keyboard.press("Tab")
    page.keyboard.type("laser at 3 dBm")
    page.keyboard.press("Enter")
    row = page.locator("tr", has_text="beta")
    expect(row.locator(".tag")).to_have_text(["for the paper", "second"])
    expect(row.locator("small.said")).to_have_text("laser at 3 dBm")
    expect(page.get_by_role("button", name="Edit tags and note of beta")).to_be_focused()
    kept = tomllib.loads((folder / "runs/beta/notes.toml").read_text(encoding="utf-8"))
    assert kept == {"tags": ["for the paper", "second"], "note": "laser at 3 dBm"}
    page.keyboard.press("Enter")
    page.keyboard.type("thrown away")
    page.keyboard.press("Escape")
    expect(page.get_by_label("Tags, separated by commas")).to_have_count(0)
    page.get_by_role("button", name="Edit tags and note of beta").click()
    page.get_by_label("Tags, separated by commas").fill("x" * 100)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("not a tag")
    assert tomllib.loads((folder / "runs/beta/notes.toml").read_text(encoding="utf-8")) == kept


def test_selected_runs_are_compared(visit: Visitor) -> None:
    page = visit.open()
    page.get_by_label("Select alpha").check()
    expect(page.get_by_role("link", name="Compare")).to_have_count(0)
    page.get_by_label("Select beta").check()
    page.get_by_role("link", name="Compare 2 runs").click()
    expect(page.locator("h1")).to_have_text("Comparison of 2 runs")
    settings = page.locator("table.differ tbody tr")
    assert {row.split("\t")[0] for row in settings.all_inner_texts()} >= {"learner.use", "optimizer.lr", "device.bench"}
    expect(page.locator("table.differ")).not_to_contain_text("train.batch")  # is the same in both
    chart = page.get_by_role("img").first
    expect(chart).to_have_attribute("aria-label", "Validation accuracy: alpha ends at 93.52, beta ends at 77.92.")
    expect(chart.locator("svg path").first).to_be_attached()
    page.get_by_role("combobox", name="Over").select_option("device_passes")
    expect(chart.locator("svg")).to_contain_text("device passes")
    page.get_by_role("combobox", name="Examples").select_option("train")
    expect(chart).to_have_attribute("aria-label", "Train accuracy: alpha ends at 95.52, beta ends at 79.92.")


def test_a_run_shows_its_curves_node_faults_and_settings(visit: Visitor, folder: Path) -> None:
    page = visit.open(f"/view/{key(folder / 'runs/broken')}")
    expect(page.locator(".lead .chip")).to_have_text("fault")
    expect(page.locator(".tiles")).to_contain_text("600,000")
    charts = page.locator(".chart:visible")
    expect(charts).to_have_count(3)
    expect(charts.nth(2).locator("svg")).to_contain_text("fault")
    expect(page.locator(".card svg[aria-label^='Reading over drive']")).to_be_visible()
    expect(page.locator("table.events")).to_contain_text("LinkTimeout: no answer within 5 s")
    expect(page.locator(".page")).to_contain_text("To go on: hil resume")
    assert page.get_by_role("button").count() == 0  # nobody trains it: there is nothing to press
    metrics = folder / "runs/broken/metrics.jsonl"
    before = charts.first.get_attribute("aria-label") or ""
    with metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"epoch": 6, "split": "validation", "loss": 0.1, "accuracy": 0.9871}) + "\n")
    expect(charts.first).to_have_attribute("aria-label", before.rpartition(" ")[0] + " 98.71.")  # without any reload
    page.get_by_role("link", name="Report of this run").click()
    expect(page.locator(".reported h2").first).to_have_text("Learning")


def test_hostile_texts_are_shown_as_texts(visit: Visitor, folder: Path) -> None:
    shown = HOSTILE.replace("\x1b", "\\x1b")
    row = visit.open().locator("tr", has_text="constructor")
    expect(row.locator("td.of-name a")).to_have_text(shown)
    expect(row.locator("small.said")).to_have_text(NOTE)
    expect(row.locator(".tag")).to_have_text(TAG)
    hostile, alpha = key(folder / "runs/hostile"), key(folder / "runs/alpha")
    for path, drawn in (("view", ".chart svg"), ("report", ".reported"), ("compare", ".chart svg")):
        page = visit.open(f"/compare?runs={hostile},{alpha}" if path == "compare" else f"/{path}/{hostile}")
        page.locator(drawn).first.wait_for()
        expect(page.locator(".page")).to_contain_text("<script>alert(1)</script>{{ 7*7 }}`${7*7}`\\x1b[31m")
        assert page.locator("a:not([href^='/']), img, iframe, .page script").count() == 0
    visit.page.locator(".chart svg").first.hover(position={"x": 200, "y": 120})  # what the chart tells of the nearest points
    expect(visit.page.locator(".chart").first).to_contain_text("{{ 7*7 }}")


def test_addresses_that_lead_nowhere_say_so(visit: Visitor) -> None:
    for path in ("/view/0123456789abcdef", "/view/alpha", "/compare?runs=../../etc/passwd,x", "/report/x"):
        expect(visit.open(path).locator("h1")).to_have_text("Not found")


def test_every_page_fits_has_no_barrier_and_calls_nobody(visit: Visitor, folder: Path) -> None:
    alpha, broken = key(folder / "runs/alpha"), key(folder / "runs/broken")
    pages = {
        "/": "td.of-name a",
        f"/view/{broken}": ".card svg[aria-label^='Reading']",
        f"/compare?runs={alpha},{broken}": ".differ",
        f"/report/{alpha}": ".reported",
    }
    for path, drawn in pages.items():
        for width, scheme in ((WIDTHS[1], "dark"), (WIDTHS[0], "light")):
            visit.page.set_viewport_size({"width": width, "height": 900})
            visit.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            if scheme == "dark":
                visit.open(path).wait_for_selector(drawn)
            visit.page.wait_for_function(WHOLE)
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
            assert not barriers(visit.page, without=ALIKE), (path, width, scheme)


def test_light_and_dark_are_chosen_and_remembered(visit: Visitor) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = visit.open().evaluate(ground)
    visit.page.get_by_role("combobox", name="Colours").select_option("dark")
    dark = visit.page.evaluate(ground)
    assert dark != light
    visit.open("/")
    assert visit.page.evaluate(ground) == dark
    expect(visit.page.get_by_role("combobox", name="Colours")).to_have_value("dark")
    visit.page.get_by_role("combobox", name="Colours").select_option("auto")  # for whoever comes next


def test_everything_is_reached_by_keyboard_with_a_visible_focus(visit: Visitor) -> None:
    page, reached = visit.open(), []
    for _ in range(24):
        page.keyboard.press("Tab")
        here = page.evaluate(
            "(() => { const e = document.activeElement, s = getComputedStyle(e), near = e.closest('label, th, td, nav');"
            " return [near?.innerText || e.innerText, s.outlineStyle, parseFloat(s.outlineWidth)]; })()"
        )
        assert here[1] != "none", here
        assert here[2] >= 1, here
        reached.append(here[0].strip())
    assert reached[0] == "hil monitor"
    assert any(text.startswith("Search") for text in reached)
    assert "State" in reached
    assert any(text.startswith(HOSTILE[:9]) for text in reached)
    page.locator("td.of-name a", has_text="broken").focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("broken")


def test_the_read_only_link_shows_all_and_changes_nothing(browser: Browser, place: Served, folder: Path) -> None:
    with browser.new_context() as context:
        visit = visitor(context, place)
        visit.open(place.look)
        expect(visit.page.locator("td.of-name a", has_text="alpha")).to_be_visible()
        expect(visit.page.get_by_text("read-only")).to_be_visible()
        assert visit.page.get_by_role("button", name="Edit").count() == 0
        before = (folder / "runs/alpha/notes.toml").read_bytes()
        visit.page.evaluate(  # as if the button were there
            """([id]) => {
                const all = [...document.querySelectorAll("[id^=c]")].filter((e) => e.querySelector("table.runs"));
                const own = all.find((e) => !e.querySelector("[id^=c]"));
                getElement(+own.id.slice(1)).$emit("notes", { id, tags: "stolen", note: "" });
            }""",
            [key(folder / "runs/alpha")],
        )
        visit.page.get_by_label("Search").fill("alpha")
        expect(visit.page.locator("td.of-name a")).to_have_count(1)  # the server has read on since
        assert (folder / "runs/alpha/notes.toml").read_bytes() == before
        assert not visit.wrong


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no list of what a process has loaded here")
def test_the_server_does_without_torch(place: Served) -> None:
    """Two seconds of its start; only the report of a search needs it."""
    assert "libtorch" not in Path(f"/proc/{place.process.pid}/maps").read_text(encoding="utf-8")


def test_without_the_cookie_no_address_is_answered(place: Served) -> None:
    for path in ("/", "/_nicegui/3.18.0/static/nicegui.js", "/_nicegui_ws/socket.io/?EIO=4&transport=polling", "/favicon.ico"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(place.base + path, timeout=10)
        assert refused.value.code == 403
