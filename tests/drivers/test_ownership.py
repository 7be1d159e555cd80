"""One owner per instrument, with real processes where it is about them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drivers.ownership import Owner, canonical, folder, left_unsafe, lock_file, take
from hil.errors import RunError

ROOT = Path(__file__).parents[2]
AWG = "TCPIP::192.168.1.20::hislip0::INSTR"
ME = Owner(os.getpid(), "runs/a", "2026-01-01T00:00:00+00:00", "hil train x.toml")


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HIL_LOCKS", str(tmp_path / "locks"))
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
        "import subprocess, sys; from drivers.ownership import *; "
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
        locks.write_text("")
    with pytest.raises(RunError, match="cannot be locked"):
        take([AWG], ME)


def test_a_link_in_place_of_a_lock_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock_file(AWG).symlink_to(victim)
    with pytest.raises(RunError, match="cannot be locked"):
        take([AWG], ME)
    assert victim.read_text() == "precious"


def test_the_folder_is_private(locks: Path) -> None:
    assert folder() == locks
    assert locks.stat().st_mode & 0o777 == 0o700
