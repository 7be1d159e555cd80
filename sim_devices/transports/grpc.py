"""The gRPC of NI-DAQmx: a simulated card at 127.0.0.1:PORT, for an unmodified nidaqmx in its gRPC mode. Needs hil[nidaqmx].

One call is carried out after the other. A call that the card refuses carries NI's number of the error.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from typing import Any, Protocol, runtime_checkable

from hil.errors import ConfigError

ANY_LENGTH = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]


@runtime_checkable
class Called(Protocol):
    """A box of calls in place of messages."""

    @property
    def name(self) -> str:
        """Model and serial number, for people."""

    def call(self, name: str, asked: Any) -> Any:
        """Carry out a call. Raises: NIError, KeyError."""


class GrpcServer:
    """Serves a card. resource: its address.

    Raises:
        ConfigError: the package is not installed, or no port is free.
    """

    def __init__(self, box: Called, host: str = "127.0.0.1", port: int = 0) -> None:
        from sim_devices.instruments.ni_card import NIError  # here, for SciPy: other benches start without it

        try:
            import grpc
            from google.protobuf import message_factory
            from nidaqmx._stubs import nidaqmx_pb2
        except ImportError as error:
            raise ConfigError(
                "the simulated NI card speaks the gRPC of nidaqmx, which is not installed", where="virtual bench",
                got=str(error), todo='pip install "hil[nidaqmx]"',
            ) from error  # fmt: skip
        self._grpc, self._box, self._refusal = grpc, box, NIError
        self._pool = futures.ThreadPoolExecutor(1)
        self._server = grpc.server(self._pool, options=ANY_LENGTH)
        service = nidaqmx_pb2.DESCRIPTOR.services_by_name["NiDAQmx"]
        handlers = {
            method.name: grpc.unary_unary_rpc_method_handler(
                self._call(method.name, message_factory.GetMessageClass(method.output_type)),
                request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
            )
            for method in service.methods
        }
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service.full_name, handlers)])
        self.resource = f"{host}:{self._server.add_insecure_port(f'{host}:{port}')}"

    def start(self) -> None:
        """Take clients, in a thread of its own."""
        self._server.start()

    def close(self) -> None:
        """Drop every client. May be called twice."""
        self._server.stop(None).wait()
        self._pool.shutdown()

    def _call(self, name: str, answer: type[Any]) -> Callable[[Any, Any], Any]:
        def call(asked: Any, context: Any) -> Any:
            try:
                return answer(**self._box.call(name, asked))
            except self._refusal as error:
                code = str(error)
                context.set_trailing_metadata([("ni-error", code)])
                context.abort(self._grpc.StatusCode.UNKNOWN, f"the card refuses {name}: {code}")
            except KeyError:
                context.set_trailing_metadata([("ni-error", "-200088")])
                context.abort(self._grpc.StatusCode.UNKNOWN, f"no such call or task: {name}")

        return call
