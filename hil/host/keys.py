"""Keys for a host on another computer: mutual TLS with an authority of its own, made by the `openssl` command.

    ca.crt                      who signed both; its own key is not kept, so nobody can sign a third
    host.crt, host.key          the host shows, by the name "hil-host" whatever its address is
    trainer.crt, trainer.key    the trainer shows

The host's computer needs ca.crt and host.*, the trainer's ca.crt and trainer.*. A new pair means a new folder.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import grpc

from hil.errors import ConfigError
from hil.files import read_bytes, there, write_atomic

NAME = "hil-host"
DAYS = 3650
MOST_BYTES = 1 << 16
OPENSSL_S = 60.0
ROLES = {"host": "serverAuth", "trainer": "clientAuth"}


def make_keys(folder: Path) -> tuple[Path, ...]:
    """Make an authority and two key pairs in a folder that has none yet; return the files.

    Raises:
        ConfigError: the folder has keys, cannot be written, or there is no openssl command.
    """
    if shutil.which("openssl") is None:
        raise _refused("no openssl command", "nothing of that name in PATH", "install openssl, or bring keys of your own")
    names = ["ca.crt", *(f"{role}.{kind}" for role in ROLES for kind in ("crt", "key"))]
    held = [name for name in names if there(folder / name)]
    if held:
        raise _refused("this folder has keys", f"{folder}: {', '.join(held)}", "name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory() as scratch:  # 0700; the authority's key goes with it
            made = Path(scratch)
            _signed(made)
            for name in names:
                (made / name).chmod(0o600)
                shutil.move(made / name, folder / name)
    except OSError as error:
        raise _refused("cannot write the keys", f"{folder}: {error.strerror or error}", "name a writable folder") from error
    return tuple(folder / name for name in names)


def _signed(folder: Path) -> None:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
    _openssl(
        folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", str(DAYS), "-subj", "/CN=hil authority",
        "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0", "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    for role, use in ROLES.items():
        _openssl(
            folder, "req", "-x509", *curve, "-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", f"{role}.key", "-out",
            f"{role}.crt", "-days", str(DAYS), "-subj", f"/CN=hil-{role}", "-addext", f"subjectAltName=DNS:hil-{role}",
            "-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"extendedKeyUsage={use}",
        )  # fmt: skip


def _openssl(folder: Path, *words: str) -> None:
    config = folder / "none.cnf"  # extensions of the system's own file must not be added
    write_atomic(config, b"[req]\ndistinguished_name = dn\n[dn]\n")
    try:
        done = subprocess.run(
            ["openssl", *words, "-config", str(config)], cwd=folder, capture_output=True, text=True, timeout=OPENSSL_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _refused("openssl does not end", f"{OPENSSL_S:g} s", "try again") from error
    if done.returncode:
        raise _refused("openssl failed", done.stderr[-300:], "openssl 3.0 or newer is needed")


def server_credentials(folder: Path) -> grpc.ServerCredentials:
    """Read the keys that a host shows and asks for. Raises: ConfigError: a file is missing."""
    authority, key, chain = _read(folder, "ca.crt", "host.key", "host.crt")
    return grpc.ssl_server_credentials([(key, chain)], root_certificates=authority, require_client_auth=True)


def channel_credentials(folder: Path) -> grpc.ChannelCredentials:
    """Read the keys that a trainer shows and asks for. Raises: ConfigError: a file is missing."""
    authority, key, chain = _read(folder, "ca.crt", "trainer.key", "trainer.crt")
    return grpc.ssl_channel_credentials(authority, key, chain)


def _read(folder: Path, *names: str) -> list[bytes]:
    return [read_bytes(folder / name, MOST_BYTES, ConfigError) for name in names]


def _refused(what: str, got: str, todo: str) -> ConfigError:
    return ConfigError(what, where="hil host --keys", got=got, outputs="untouched; nothing was opened", todo=todo)
