"""One owner per instrument, with real processes where it is about them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.lock import (  # fmt: skip
    MACHINE,
    Owned,
    Owner,
    canonical,
    folder,
    left_unsafe,
    lock_file,
    machine_file,
    machine_folder,
    sweep,
    take,
)
from hil.errors import RunError

ROOT = Path(__file__).parents[2]
AWG = "TCPIP::192.168.1.20::hislip0::INSTR"
ME = Owner(os.getpid(), "runs/a", "2026-01-01T00:00:00+00:00", "hil train x.toml")


@pytest.fixture(autouse=True)
def me(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process, which may be a fork of the one that has imported this file."""
    monkeypatch.setattr(f"{__name__}.ME", replace(ME, pid=os.getpid()))


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HIL_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("HIL_MACHINE_LOCKS", str(tmp_path / "machine"))
    return tmp_path / "locks"


@pytest.mark.parametrize(
    "spellings",
    [
        (AWG, "tcpip0::192.168.1.20::HISLIP0::instr", "TCPIP::192.168.1.20::inst0::INSTR", "TCPIP0::192.168.1.20::INSTR",
         "TCPIP::192.168.1.20::5025::SOCKET", "TCPIP::192.168.1.20::hislip0,4880::INSTR"),
        ("TCPIP::Scope.Lab::INSTR", "TCPIP::scope.lab.::hislip0::INSTR"),
        ("TCPIP::localhost::hislip0,40001::INSTR", "TCPIP::127.0.0.1::hislip0,40001", "TCPIP::127.0.0.1::40001::SOCKET"),
        ("USB0::0x0957::0x2A07::my1::INSTR", "USB::2391::10759::MY1::0::INSTR"),
        ("GPIB::5::INSTR", "GPIB0::5::INSTR", "gpib0::5", " GPIB0 :: 05 :: INSTR "),
        ("TCPIP::[fe80::1]::INSTR", "tcpip0::[FE80:0:0:0:0:0:0:1]::hislip0::instr", "TCPIP::[fe80:0::0001]::5025::SOCKET"),
        ("TCPIP::10.0.0.7::INSTR", "TCPIP::[::ffff:10.0.0.7]::INSTR"),
        ("ASRL1::INSTR", "asrl1::instr", "ASRL1", "/dev/ttyS0"),
        ("ASRL/dev/ttyUSB7::INSTR", "asrl/dev/ttyUSB7::instr", " ASRL/dev/ttyUSB7", "/dev/ttyUSB7", " /dev/ttyUSB7 "),
    ],
)  # fmt: skip
def test_spellings_of_one_address_share_a_lock(spellings: tuple[str, ...]) -> None:
    assert len({canonical(s) for s in spellings}) == 1


def test_different_instruments_do_not() -> None:
    addresses = (
        AWG, "TCPIP::192.168.1.21::hislip0::INSTR", "TCPIP::127.0.0.1::hislip0,40001::INSTR", "GPIB1::5::INSTR",
        "TCPIP::127.0.0.1::hislip0,40002::INSTR", "TCPIP::gateway::gpib0,5::INSTR", "TCPIP::gateway::gpib0,6::INSTR",
        "GPIB0::5::INSTR", "GPIB0::5::1::INSTR", "USB::1::2::A::INSTR", "USB::1::2::B::INSTR", "/dev/ttyACM0", "/dev/ttyACM1",
        "TCPIP::[fe80::1]::INSTR", "TCPIP::[fe80::2]::INSTR", "ASRL2::INSTR", "ASRL/dev/ttyUSB1::INSTR",
    )  # fmt: skip
    assert len({canonical(a) for a in addresses}) == len(addresses)


def test_a_serial_port_by_its_other_name(tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to("/dev/null")
    assert canonical(str(tmp_path / "by-id")) == canonical("/dev/null")


def test_the_second_is_refused_by_name_and_gets_none_of_what_it_asked_for() -> None:
    with take([AWG], ME):
        with pytest.raises(RunError, match=rf"process {os.getpid()} \(hil train x.toml\), run runs/a, since 2026") as caught:
            take(["GPIB0::1::INSTR", "TCPIP::192.168.1.20::5025::SOCKET"], ME)
        assert "nothing was sent" in str(caught.value)
        take(["GPIB0::1::INSTR"], ME).release()
    take([AWG], ME).release()


def test_the_kernel_lets_go_when_the_last_who_shares_it_is_gone() -> None:
    """A killed owner's lock lives on in who inherited the file, and no longer."""
    program = (
        "import subprocess, sys; from drivers.lock import *; "
        f"owned = take([{AWG!r}], Owner(1, '', '', 'x')); owned.write({AWG!r}, {{'name': 'awg'}}); "
        "heir = subprocess.Popen(['sleep', '30'], pass_fds=tuple(owned.files.values()), stdout=subprocess.DEVNULL); "
        "print(heir.pid, flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    owner = subprocess.Popen([sys.executable, "-c", program], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    heir = int(owner.stdout.readline())
    owner.kill()
    owner.communicate()
    with pytest.raises(RunError, match="another program owns"):
        take([AWG], ME)
    os.kill(heir, 9)
    for _ in range(200):
        try:
            owned = take([AWG], ME)
            break
        except RunError:
            os.sched_yield()
            subprocess.run(["sleep", "0.01"], check=True)
    assert owned.found == {canonical(AWG): {"name": "awg"}}
    owned.close()
    assert [content["safe"] for content in left_unsafe().values()] == [{"name": "awg"}], "taking it made nothing safe yet"
    owned = take([AWG], ME)
    owned.release()
    assert not left_unsafe()


def test_what_could_not_be_verified_stays_on_record() -> None:
    owned = take([AWG, "GPIB0::1::INSTR"], ME)
    for resource in (AWG, "GPIB0::1::INSTR"):
        owned.write(resource, {"name": resource})
    owned.release(unverified=[AWG])
    assert [content["safe"]["name"] for content in left_unsafe().values()] == [AWG]


@pytest.mark.parametrize("trick", ["link", "open", "file"])
def test_a_folder_that_is_not_ours_alone_is_refused(locks: Path, tmp_path: Path, trick: str) -> None:
    if trick == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        locks.symlink_to(tmp_path / "elsewhere")
    elif trick == "open":
        locks.mkdir()
        locks.chmod(0o777)
    else:
        locks.write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be locked"):
        take([AWG], ME)


def test_a_link_in_place_of_a_lock_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    lock_file(AWG).symlink_to(victim)
    with pytest.raises(RunError, match="cannot be locked"):
        take([AWG], ME)
    assert victim.read_text(encoding="utf-8") == "precious"


def test_the_folder_is_private(locks: Path) -> None:
    assert folder() == locks
    assert locks.stat().st_mode & 0o777 == 0o700


# The machine's locks.

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="another account is imitated with setuid")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lock folder that other accounts can reach, and place for their own ones."""
    top = Path(tempfile.mkdtemp(prefix="hil-test-"))
    top.chmod(0o1777)
    monkeypatch.setenv("HIL_MACHINE_LOCKS", str(top / "machine"))
    monkeypatch.setenv("HIL_LOCKS", str(top / f"user-{os.getuid()}"))
    yield top / "machine"
    shutil.rmtree(top)


def as_nobody(do: Callable[[], object]) -> str:
    """What `do` returns, or what it raises, in a process of another account with files of its own."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.umask(0o077)
            os.environ["HIL_LOCKS"] = str(Path(os.environ["HIL_LOCKS"]).with_name(f"user-{NOBODY}"))
            said = str(do())
        except BaseException as error:  # noqa: BLE001 - told to who asked
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(pid, 0)
    return said


def taken(resource: str) -> Callable[[], str]:
    def do() -> str:
        with take([resource], Owner(os.getpid(), "", "", "another account")) as owned:
            return f"taken {owned.found} {owned.strangers}"

    return do


@as_root
@pytest.mark.parametrize("resource", [AWG, "TCPIP::127.0.0.1::hislip0,40001::INSTR", "/dev/ttyACM0", "GPIB0::5::INSTR"])
def test_another_account_is_kept_out_both_ways(machine: Path, resource: str) -> None:
    assert as_nobody(taken(resource)) == "taken {} {}"  # and what it made of the folder serves us
    with take([resource], ME):
        said = as_nobody(taken(resource))
        assert said.startswith(
            f"RunError: {resource}: another program owns this instrument; got process {os.getpid()} (hil train"
        )
        assert "user 0" in said
    assert as_nobody(taken(resource)) == "taken {} {}"
    assert stat.S_IMODE(machine.stat().st_mode) == 0o1777

    def held() -> str:
        with take([resource], Owner(os.getpid(), "", "", "another account")):
            if (pid := os.fork()) == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            os.write(ready, b".")
            os.read(go_on, 1)
        return "done"

    (told, ready), (go_on, let_go) = os.pipe(), os.pipe()
    keeper = os.fork()
    if keeper == 0:
        as_nobody(held)
        os._exit(0)
    os.read(told, 1)
    with pytest.raises(RunError, match=r"another account\).*user 65534"):
        take([resource], ME)
    os.write(let_go, b".")
    os.waitpid(keeper, 0)
    take([resource], ME).release()
    for end in (told, ready, go_on, let_go):
        os.close(end)


@pytest.mark.parametrize("resource", [AWG, "/dev/ttyACM0", "USB0::1::2::A::INSTR"])
def test_another_folder_for_the_users_files_is_no_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resource: str
) -> None:
    with take([resource], ME):
        monkeypatch.setenv("HIL_LOCKS", str(tmp_path / "others"))
        with pytest.raises(RunError, match="another program owns"):
            take([resource], ME)


def test_a_kernel_that_protects_what_others_made_in_a_sticky_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """fs.protected_regular: EACCES for O_CREAT where the file is there, whatever its mode."""
    true, asked = os.open, []

    def protected(path: str | Path, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_CREAT and not flags & os.O_EXCL and Path(path).exists():
            asked.append(path)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return true(path, flags, mode, **more)

    machine_file(AWG).touch()
    machine_file(AWG).chmod(0o666)
    monkeypatch.setattr(os, "open", protected)
    take([AWG], ME).release()
    assert asked == []


@as_root
def test_what_another_account_left_is_told_and_not_carried_out(machine: Path) -> None:
    safe = {"name": "awg", "resource": AWG, "steps": [{"command": ":OUTP1 1"}]}

    def leave() -> str:
        owned = take([AWG], Owner(os.getpid(), "runs/b", "now", "hil train b.toml"))
        owned.write(AWG, safe)
        owned.close()  # as a program that dies
        return "left"

    assert as_nobody(leave) == "left"
    with take([AWG], ME) as owned:
        assert owned.found == {}
        assert "hil train b.toml" in owned.strangers[canonical(AWG)]
        assert f"user {NOBODY}" in owned.strangers[canonical(AWG)]
        owned.release()
    found = as_nobody(taken(AWG))
    assert str(safe) in found, "who left it makes it safe, whoever had it in between"


@as_root
@pytest.mark.parametrize("change", ["owner", "mode"])
def test_a_safe_state_that_somebody_else_can_have_written_is_not_believed(change: str) -> None:
    with take([AWG], ME) as owned:
        owned.write(AWG, {"name": "awg"})
    path = lock_file(AWG)
    if change == "owner":
        os.chown(path, NOBODY, NOBODY)
    else:
        path.chmod(0o666)
    assert left_unsafe() == {}
    with take([AWG], ME) as owned:
        assert owned.found == {}
        assert list(owned.strangers) == [canonical(AWG)]


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"pid": 1e999, "run": 0, "since": 0, "command": 0}', "\x1b]0;x\x07", "{}", "x" * 200_000]
)
def test_what_anybody_may_have_written_breaks_nothing(content: str) -> None:
    machine_file(AWG).write_text(content, encoding="utf-8")
    with take([AWG], ME) as owned:
        assert owned.found == {}
    machine_file(AWG).write_text(
        json.dumps({"pid": 1, "run": "", "since": "", "command": "\x1b[2J" * 500, "user": 7}), encoding="utf-8"
    )
    with take([AWG], ME) as owned:
        assert owned.strangers[canonical(AWG)].isprintable()
        assert len(owned.strangers[canonical(AWG)]) <= 600


@pytest.mark.parametrize("trick", ["link", "dangling", "pipe", "folder", "second name", "socket"])
def test_a_machine_lock_that_is_no_plain_file_is_refused(tmp_path: Path, trick: str) -> None:
    victim, path = tmp_path / "victim", machine_file(AWG)
    victim.write_text("precious", encoding="utf-8")
    if trick == "link":
        path.symlink_to(victim)
    elif trick == "dangling":
        path.symlink_to(tmp_path / "nothing")
    elif trick == "pipe":
        os.mkfifo(path)
    elif trick == "folder":
        path.mkdir()
    elif trick == "second name":
        path.hardlink_to(victim)
    else:
        os.mknod(path, stat.S_IFSOCK | 0o666)
    with pytest.raises(RunError, match=r"cannot be locked(?s:.)*nothing was opened"):
        take([AWG], ME)
    assert victim.read_text(encoding="utf-8") == "precious"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("trick", ["link", "file", "others"])
def test_a_machine_folder_that_is_not_for_all_is_refused(tmp_path: Path, trick: str) -> None:
    place = tmp_path / "machine"
    if trick == "link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere").chmod(0o1777)
        place.symlink_to(tmp_path / "elsewhere")
    elif trick == "file":
        place.write_text("", encoding="utf-8")
    elif os.getuid() == 0:
        place.mkdir(mode=0o755)
        os.chown(place, NOBODY, NOBODY)
    else:
        pytest.skip("needs root")
    with pytest.raises(RunError, match=r"cannot be locked(?s:.)*1777"):
        take([AWG], ME)


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o000])
def test_any_account_can_lock_whatever_the_umask(umask: int) -> None:
    before = os.umask(umask)
    try:
        with take([AWG], ME):
            assert stat.S_IMODE(machine_folder().stat().st_mode) == 0o1777
            assert stat.S_IMODE(machine_file(AWG).stat().st_mode) == 0o666
            assert stat.S_IMODE(lock_file(AWG).stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EIO, errno.EACCES, errno.EBADF])
def test_a_disk_that_cannot_lock_is_not_taken_for_another_program(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(file: int, kind: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RunError, match="cannot lock files") as caught:
        take([AWG], ME)
    assert os.strerror(code) in caught.value.got
    assert "program" not in str(caught.value)


@pytest.mark.parametrize("removed", ["machine", "locks", "both", "folders"])
def test_a_lock_that_is_removed_is_taken_anew(tmp_path: Path, removed: str) -> None:
    owned = take([AWG, "GPIB0::1::INSTR"], ME)
    owned.write(AWG, {"name": "awg"})
    handles = owned.files
    assert owned.check() == ()
    paths = {"machine": [machine_file(AWG)], "locks": [lock_file(AWG)]}.get(removed, [machine_file(AWG), lock_file(AWG)])
    for path in paths:
        path.unlink()
    if removed == "folders":
        shutil.rmtree(tmp_path / "machine")
        shutil.rmtree(tmp_path / "locks")
    again = owned.check()
    assert set(paths) <= set(again)
    assert owned.files == handles
    assert owned.check() == ()
    with pytest.raises(RunError, match=r"another program owns.*got process .*hil train x.toml"):
        take([AWG], ME)
    owned.close()
    assert [content["safe"] for content in left_unsafe().values()] == [{"name": "awg"}]


@pytest.mark.parametrize("part", ["machine", "locks"])
def test_a_lock_that_is_removed_and_taken_by_another_is_a_fault(part: str) -> None:
    owned = take([AWG], ME)
    path = machine_file(AWG) if part == "machine" else lock_file(AWG)
    path.unlink()
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.pwrite(handle, b'{"pid": 4711, "run": "", "since": "now", "command": "thief"}', 0)
    for _ in range(2):
        with pytest.raises(RunError, match=r"removed(?s:.)*another program owns this instrument; got process 4711 \(thief\)"):
            owned.check()
    os.close(handle)
    assert owned.check() == (path,)
    owned.close()


def test_handles_are_not_inherited_unasked() -> None:
    owned = take([AWG], ME)
    machine_file(AWG).unlink()
    owned.check()
    assert set(owned.files) == {canonical(AWG), canonical(AWG) + MACHINE}
    assert not any(os.get_inheritable(handle) for handle in owned.files.values())
    owned.close()


def everything() -> list[str]:
    return sorted(path.name for place in (folder(), machine_folder()) for path in place.iterdir())


@pytest.mark.parametrize("end", ["release", "killed", "released unverified"])
def test_a_virtual_bench_leaves_no_files(end: str) -> None:
    virtual = Owner(os.getpid(), "", "now", "hil train", virtual=True)
    resources = ["TCPIP::127.0.0.1::hislip0,40001::INSTR", "TCPIP::127.0.0.1::hislip0,40002::INSTR"]
    owned = take(resources, virtual)
    owned.write(resources[0], {"name": "awg"})
    if end == "killed":
        owned.close()
        assert everything()
    else:
        owned.release(resources[:1] if end == "released unverified" else ())
    sweep()
    assert everything() == []


def test_what_is_swept_is_nobodys_and_tells_of_nothing() -> None:
    with take([AWG], ME) as owned:
        owned.write(AWG, {"name": "awg"})
    held = take(["GPIB0::1::INSTR"], Owner(1, "", "", "virtual", virtual=True))
    (folder() / "guardian-999999999.jsonl").write_text('{"event": "watching", "virtual": true}\n', encoding="utf-8")
    (folder() / "guardian-999999998.jsonl").write_text('{"event": "watching", "virtual": false}\n', encoding="utf-8")
    (folder() / f"guardian-{os.getpid()}.jsonl").write_text('{"event": "watching", "virtual": true}\n', encoding="utf-8")
    before = everything()
    sweep()
    assert sorted(set(before) - set(everything())) == ["guardian-999999999.jsonl"]
    held.release()
    assert [content["safe"] for content in left_unsafe().values()] == [{"name": "awg"}]


def test_who_was_never_reached_leaves_nothing_but_what_was_there() -> None:
    take(["GPIB0::1::INSTR"], ME).release()
    with suppress(ZeroDivisionError), take(["GPIB0::1::INSTR"], ME) as owned:
        assert isinstance(owned, Owned)
        raise ZeroDivisionError
    with take([AWG], ME), pytest.raises(RunError):
        take(["GPIB0::1::INSTR", AWG], ME)
    assert everything() == []
