"""The documentation is executed and checked: what a newcomer pastes must run, what a page names must exist."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from cyclopts import CycloptsError
from pages import DOCS, PAGES, ROOT, Block, blocks, rows, sections, spans, title, written

from hil.cli import app
from hil.config.bench import read_bench
from hil.config.experiment import read_experiment

OURS = ("hil", "drivers", "sim_devices", "calibration")
FOLDERS = (*OURS, "examples", "tests", "experiments", "benches", "benchmarks", "docs")
COMMANDS = ("", "sh", "console")  # languages of blocks that may hold command lines
NO_FILES = {"json.py", "torch.py", "test_reads"}  # what a user must not call a module; a key of summary.json
GROUPS = {"tutorials": 3, "how-to": 10, "explanation": 3, "reference": 6, "decisions": 12}  # folder -> pages at least


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory that modules are imported from, and forgotten again."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", [p for p in PAGES if any(b.language == "python" for b in blocks(p))], ids=title)
def test_page_runs(page: Path, folder: Path) -> None:
    files = written([page], folder)
    for name in (name for name in files if name.startswith("test_")):
        module = importlib.import_module(name.removesuffix(".py"))
        tests = [getattr(module, test) for test in dir(module) if test.startswith("test_")]
        assert tests, name
        for test in tests:
            test()
    code = [block.text for block in blocks(page) if block.language == "python" and not block.file]
    if code:
        script = folder / f"page_{page.stem}.py"  # not to hide a package of ours
        script.write_text("\n".join(code), encoding="utf-8")
        runpy.run_path(str(script), run_name=page.stem)


def test_the_driver_of_the_how_to_is_the_template() -> None:
    (shown,) = (block.text for block in blocks(DOCS / "how-to" / "add_a_driver.md") if block.file == "acme_g1.py")
    assert shown == (ROOT / "drivers" / "template.py").read_text(encoding="utf-8")


def blocks_of_toml_are_toml(page: Path) -> None:
    for block in blocks(page):
        if block.language == "toml":
            tomllib.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_whole_files_of_a_page_are_read(page: Path, folder: Path) -> None:
    """A bench has a shape; an experiment has a network, a device and a learner. test_reference.py looks at parts of files."""
    tables = [(block, tomllib.loads(block.text)) for block in blocks(page) if block.language == "toml"]
    written([page, DOCS / "how-to" / "add_a_driver.md"], folder)
    (folder / "benches").symlink_to(ROOT / "benches")
    for block, table in tables:
        if "shape" in table:
            (folder / "BENCH.toml").write_text(block.text, encoding="utf-8")
            assert read_bench(folder / "BENCH.toml").name == table["name"]
    for block, table in tables:
        if {"network", "device", "learner"} <= set(table):
            (folder / "EXPERIMENT.toml").write_text(block.text, encoding="utf-8")
            read_experiment(folder / "EXPERIMENT.toml")


def links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{title(page)}: {link}"
            assert ROOT in target.parents, f"{title(page)}: {link} leads out of the repository"
            if anchor:
                heads = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
                assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, (
                    f"{title(page)}: {link}"
                )


def test_every_page_is_reached_from_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    linked = {(DOCS / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)\)", index)}
    decisions = {
        (DOCS / "decisions" / link).resolve()
        for link in re.findall(r"\]\(([^)#\s]+)\)", (DOCS / "decisions" / "README.md").read_text(encoding="utf-8"))
    }
    missing = set(DOCS.rglob("*.md")) - linked - decisions - {DOCS / "README.md"}
    assert not missing, f"not linked in docs/README.md: {', '.join(sorted(map(title, missing)))}"
    for group, least in GROUPS.items():
        assert len(list((DOCS / group).glob("*.md"))) >= least, group


def files_that_are_named_exist(page: Path) -> None:
    for span in spans(page):
        path = span.split(":")[0].strip()
        if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*", path):
            assert (ROOT / path).exists(), f"{title(page)}: `{span}`"
        elif re.fullmatch(r"(test_\w+|\w+\.py)", path):
            name = path.removesuffix(".py") + ".py"
            assert name in known_files() or span in NO_FILES, f"{title(page)}: `{span}`"


@cache
def known_files() -> set[str]:
    """Names of files of Python that are there, and of those that a page has its reader write."""
    there = {path.name for top in (*OURS, "tests", "benchmarks") for path in (ROOT / top).rglob("*.py")}
    return there | {block.file for page in PAGES for block in blocks(page)}


def scripts_exist(page: Path) -> None:
    for script in re.findall(r"(?:benchmarks|tests|examples)/[\w/]+\.py", page.read_text(encoding="utf-8")):
        assert (ROOT / script).is_file(), f"{title(page)}: {script}"


def test_files_that_the_code_names_exist() -> None:
    named = re.compile(rf"\b(?:{'|'.join(FOLDERS)})/[\w./-]+\.(?:py|md|toml)\b")
    sources = [
        p
        for top in (*OURS, "benchmarks", "benches", "experiments")
        for p in (ROOT / top).rglob("*")
        if p.suffix in (".py", ".toml")
    ]
    wrong = {
        f"{title(p)}: {name}"
        for p in sources
        for name in named.findall(p.read_text(encoding="utf-8"))
        if not (ROOT / name).is_file()
    }
    assert len(sources) > 200
    assert not wrong


def names_of_python_exist(page: Path) -> None:
    for span in spans(page):
        named = re.match(rf"((?:{'|'.join(OURS)})(?:\.\w+)+)(?::(\w+))?(?=\(|$)", span)
        if named and not named[1].endswith((".py", ".toml", ".md")):
            _resolved(named[1] + (f".{named[2]}" if named[2] else ""), f"{title(page)}: `{span}`")


def _resolved(dotted: str, where: str) -> None:
    parts = dotted.split(".")
    for size in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:size]))
        except ModuleNotFoundError:
            continue
        for name in parts[size:]:
            assert hasattr(found, name) or name in getattr(found, "__annotations__", {}), where
            found = getattr(found, name, None)
        return
    raise AssertionError(where)


def command_lines(page: Path) -> Iterator[tuple[str, bool]]:
    """Every `hil …` of a page: in its blocks, where two spaces begin an explanation, and (True) between backticks."""
    for block in blocks(page):
        if block.language in COMMANDS:
            for line in block.text.splitlines():
                told = re.match(r"(?:\$ )?(hil .*)", line)
                if told:
                    yield re.split(r" {2,}| #", told[1])[0], False
    yield from ((span, True) for span in spans(page) if re.match(r"hil( |$)", span))


def command_lines_parse(page: Path) -> None:
    for line, mentioned in command_lines(page):
        words = shlex.split(line)[1:]
        if mentioned and len(words) == 1 and not words[0].startswith("-"):  # the name of a command, in a sentence
            assert words[0] in app, f"{title(page)}: {line}"
        elif words and words[0] not in ("--help", "--version"):
            try:
                app.parse_args(words, exit_on_error=False, print_error=False)
            except CycloptsError as error:
                raise AssertionError(f"{title(page)}: {line}: {error}") from error
        for word in words:
            if re.fullmatch(r"(experiments|benches)/[\w./-]+", word):
                assert (ROOT / word).is_file(), f"{title(page)}: {line}"


CHECKS = (
    blocks_of_toml_are_toml, links_lead_somewhere, files_that_are_named_exist, scripts_exist, names_of_python_exist,
    command_lines_parse,
)  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_page(check: Callable[[Path], None]) -> None:
    wrong = []
    for page in PAGES:
        try:
            check(page)
        except (AssertionError, tomllib.TOMLDecodeError) as error:
            wrong.append(f"{title(page)}: {error}")
    assert not wrong, "\n".join(wrong)


def test_the_checks_find_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    for text, check in (
        ("`tests/run/test_disc_full.py`", files_that_are_named_exist),
        ("`hil/build/shape.py: Shape`", files_that_are_named_exist),
        ("`test_alinement`", files_that_are_named_exist),
        ("`hil.conformance.check_instruments`", names_of_python_exist),
        ("`drivers.links.visa.VisaLink(x)`", names_of_python_exist),
        ("[x](nowhere.md)", links_lead_somewhere),
        ("`hil trane`", command_lines_parse),
        ("```\n$ hil train\n```", command_lines_parse),
        ("`hil train experiments/mnist.toml`", command_lines_parse),
        ("`hil status RUN --logs`", command_lines_parse),
        ("```toml\nuse = digits\n```", blocks_of_toml_are_toml),
    ):
        page.write_text(f"A page.\n\n{text}\n", encoding="utf-8")
        with pytest.raises((AssertionError, tomllib.TOMLDecodeError)):
            check(page)


def test_the_reading_list_can_be_read_in_an_afternoon() -> None:
    page = DOCS / "explanation" / "reading_list.md"
    listed = [cells for cells in rows(page.read_text(encoding="utf-8")) if cells[0].isdigit()]
    assert 15 <= len(listed) <= 22
    total = 0
    for _, file, lines, what in listed:
        path = ROOT / file.strip("`")
        there = len(path.read_text(encoding="utf-8").splitlines())
        assert abs(there - int(lines)) <= 20 + there // 4, f"{file}: {lines} in the list, {there} in the file"
        assert len(what) > 20
        total += there
    assert total < 5_000


def test_decisions_have_all_parts() -> None:
    for path in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        text = path.read_text(encoding="utf-8")
        assert re.search(r"^Date: \d{4}-\d\d-\d\d$", text, re.M), path.name
        assert re.search(r"^Status: (accepted|superseded by \[.+\]\(.+\))$", text, re.M), path.name
        assert list(sections(path, 2)) == ["Context", "Decision", "Rejected", "Consequences"], path.name
        assert len(text.splitlines()) <= 60, f"{path.name}: half a page"


def test_blocks_know_their_files() -> None:
    assert Block("python", "acme_g1.py", "") in [
        Block(b.language, b.file, "") for b in blocks(DOCS / "how-to" / "add_a_driver.md")
    ]
