"""The line to one client of a box while faults are scheduled: between what the box says and what arrives.

    command   mangle, flood, hand, reboot                            before the box executes it
    reply     delay   then   reset | refuse   or   drop | stale | half_close | the damaged reply, once or twice   then   stall

A transport gives its framing: the (header, payload) pairs that carry a reply. With HiSLIP and VXI-11 a truncated reply is a
message that ends as it should and holds less than its block promises, as a firmware with a fault would send it; a reply that is
dropped has no end. On a raw socket the terminator of a truncated reply is missing too.

What is sent goes through an outlet: the socket of the client, or the output queue from which a VXI-11 client reads.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from sim_devices.instruments.box import Box, Message
from sim_devices.instruments.damage import block_head, by_kind, damaged, flip, kept
from sim_devices.instruments.faults import SLICE_S, Faults, Moment, Strike
from sim_devices.instruments.status import QUEUE_LENGTH
from sim_devices.transports.listener import abort

SYSTEM_ERROR = -310
Frames = Sequence[tuple[bytes, bytes]]
Framing = Callable[[bytes, bool], Frames]


class Outlet(Protocol):
    """The way of replies to one client."""

    def put(self, *parts: tuple[bytes, bool]) -> None:
        """Send (bytes, whether a message ends with them), one after another."""

    def heard(self, seconds: float) -> bool:
        """Wait; return at once when the client says something else, and then True."""

    def reset(self) -> None:
        """Drop the client with RST."""

    def finish(self) -> None:
        """Send FIN after what was put."""


class SocketOutlet:
    """A connection that carries replies as bytes, with its messages framed already.

    Args:
        client: the connection.
        others: what else belongs to this client.
    """

    def __init__(self, client: socket.socket, others: Callable[[], Sequence[socket.socket]] = tuple) -> None:
        self._client, self._others = client, others

    def put(self, *parts: tuple[bytes, bool]) -> None:
        """See Outlet."""
        self._client.sendall(b"".join([data for data, _ in parts]))

    def heard(self, seconds: float) -> bool:
        """See Outlet."""
        return bool(select.select([self._client], [], [], seconds)[0])

    def reset(self) -> None:
        """See Outlet."""
        abort(self._client, *self._others())

    def finish(self) -> None:
        """See Outlet."""
        self._client.shutdown(socket.SHUT_WR)


class FaultyLine:
    """The replies of one box to one client, with faults on the way.

    Args:
        box: that answers.
        faults: of the box.
        outlet: to the client.
        unwanted: a device clear came, so nobody waits for a reply.
    """

    def __init__(self, box: Box, faults: Faults, outlet: Outlet, unwanted: Callable[[], bool] = lambda: False) -> None:
        self._box, self._faults, self._outlet, self._unwanted = box, faults, outlet, unwanted
        self._held: list[tuple[Strike, bytes]] = []  # replies that are given in front of the next one

    def command(self, message: Message) -> Message:
        """Return the message as it arrives at the box.

        Raises:
            ConnectionAbortedError: the box rebooted.
        """
        for strike in self._faults.strikes(Moment.COMMAND, message):
            if strike.fault.kind == "mangle":
                mangled = bytearray(message)
                flip(mangled, strike.fault.bits, strike.rng)
                message = mangled
            elif strike.fault.kind == "flood":
                for _ in range(QUEUE_LENGTH + 1):
                    self._box.query_error(SYSTEM_ERROR)
            elif strike.fault.kind == "hand":
                self._box.execute(strike.fault.command.encode())
            else:
                self._reboot(strike)
        return message

    def reply(self, message: Message, reply: bytes | None, framing: Framing) -> bool:
        """Send what arrives of a reply; was it sent as a whole message?

        Raises:
            ConnectionAbortedError: the line is cut.
        """
        struck = by_kind(self._faults.strikes(Moment.EXCHANGE, message))
        if strike := struck.get("delay"):
            strike.wait(strike.fault.seconds, self._unwanted)
        if "reset" in struck:
            self._outlet.reset()
            raise ConnectionAbortedError("reset")
        if strike := struck.get("refuse"):
            self._shut(strike)
        sent = reply is not None and not self._unwanted() and self._send(message, reply, framing)
        if strike := struck.get("stall"):
            strike.wait(strike.fault.seconds, self._unwanted)
        return sent

    def forget(self) -> None:
        """A device clear: what was held back is lost."""
        self._held.clear()

    def _send(self, message: Message, reply: bytes, framing: Framing) -> bool:
        struck = by_kind(self._faults.strikes(Moment.REPLY, message))
        if "drop" in struck:
            return False
        frames = framing(damaged(reply, block_head(reply), struck), "truncate" not in struck)
        whole = b"".join([head + payload for head, payload in frames])
        if strike := struck.get("half_close"):
            self._half_close(frames, kept(strike.fault, len(reply)))
            return False
        wholes = [whole] * (2 if "duplicate" in struck else 1)
        if strike := struck.get("stale"):
            self._held += [(strike, one) for one in wholes]
            return self._late(strike)
        wholes = [*self._given(), *wholes]
        if strike := struck.get("throttle"):
            return self._trickle(wholes, strike)
        self._put(wholes)
        return True

    def _put(self, wholes: Sequence[bytes]) -> None:
        self._outlet.put(*((whole, True) for whole in wholes))

    def _reboot(self, strike: Strike) -> None:
        self._box.reboot()
        if not strike.fault.quiet:
            self._shut(strike, reset=True)

    def _shut(self, strike: Strike, reset: bool = False) -> None:
        for door in self._faults.doors:
            door.refuse(strike.fault.seconds, strike.healed, reset)
        raise ConnectionAbortedError("the box is gone")

    def _half_close(self, frames: Frames, count: int) -> None:
        """The frames up to `count` bytes of payload, then FIN."""
        self._put(self._given())
        begun: list[bytes] = []
        for head, payload in frames:
            begun += [head, payload[:count]]
            count -= len(payload)
            if count < 0:
                break
        self._outlet.put((b"".join(begun), False))
        self._outlet.finish()

    def _late(self, strike: Strike) -> bool:
        """Hold the reply back until the client says something else, or the time is over; 0 s: only until the former."""
        if not strike.fault.seconds:
            return False
        left = strike.fault.seconds
        while left > 0 and not self._unwanted() and not strike.healed.is_set():
            if self._outlet.heard(min(left, SLICE_S)):
                return False
            left -= SLICE_S
        self._put(self._given())
        return True

    def _given(self) -> list[bytes]:
        """Return the replies that were held back and are still wanted."""
        given = [reply for strike, reply in self._held if not strike.healed.is_set()]
        self._held.clear()
        return given

    def _trickle(self, wholes: Sequence[bytes], strike: Strike) -> bool:
        step = max(1, round(strike.fault.bytes_per_s * SLICE_S))
        for whole in wholes:
            for at in range(0, len(whole), step):
                if self._unwanted():
                    return False
                piece = whole[at : at + step]
                self._outlet.put((piece, at + step >= len(whole)))
                strike.wait(len(piece) / strike.fault.bytes_per_s, self._unwanted)
        return True


def raw(terminator: bytes) -> Framing:
    """The framing of a raw socket."""
    return lambda reply, ends: [(b"", reply + terminator * ends)]
