from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Call(_message.Message):
    __slots__ = ("token", "number", "anew")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ANEW_FIELD_NUMBER: _ClassVar[int]
    token: str
    number: int
    anew: bool
    def __init__(self, token: _Optional[str] = ..., number: _Optional[int] = ..., anew: bool = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("call", "shape", "dtype", "data", "fault")
    CALL_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    call: Call
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    data: bytes
    fault: Fault
    def __init__(self, call: _Optional[_Union[Call, _Mapping]] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., data: _Optional[bytes] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("call", "fault", "verified")
    CALL_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    call: Call
    fault: Fault
    verified: bool
    def __init__(self, call: _Optional[_Union[Call, _Mapping]] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ..., verified: bool = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("call", "fault", "json")
    CALL_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    call: Call
    fault: Fault
    json: str
    def __init__(self, call: _Optional[_Union[Call, _Mapping]] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ..., json: _Optional[str] = ...) -> None: ...

class Description(_message.Message):
    __slots__ = ("call", "fault", "device", "inputs", "outputs", "params", "temporal", "provenance", "safe", "restorable", "opened", "deadline_s", "silence_s", "slew_by", "row_s", "neurons")
    CALL_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    TEMPORAL_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    SAFE_FIELD_NUMBER: _ClassVar[int]
    RESTORABLE_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    SILENCE_S_FIELD_NUMBER: _ClassVar[int]
    SLEW_BY_FIELD_NUMBER: _ClassVar[int]
    ROW_S_FIELD_NUMBER: _ClassVar[int]
    NEURONS_FIELD_NUMBER: _ClassVar[int]
    call: Call
    fault: Fault
    device: str
    inputs: Port
    outputs: Port
    params: Port
    temporal: bool
    provenance: str
    safe: bool
    restorable: bool
    opened: int
    deadline_s: float
    silence_s: float
    slew_by: str
    row_s: float
    neurons: Neurons
    def __init__(self, call: _Optional[_Union[Call, _Mapping]] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ..., device: _Optional[str] = ..., inputs: _Optional[_Union[Port, _Mapping]] = ..., outputs: _Optional[_Union[Port, _Mapping]] = ..., params: _Optional[_Union[Port, _Mapping]] = ..., temporal: bool = ..., provenance: _Optional[str] = ..., safe: bool = ..., restorable: bool = ..., opened: _Optional[int] = ..., deadline_s: _Optional[float] = ..., silence_s: _Optional[float] = ..., slew_by: _Optional[str] = ..., row_s: _Optional[float] = ..., neurons: _Optional[_Union[Neurons, _Mapping]] = ...) -> None: ...

class Neurons(_message.Message):
    __slots__ = ("leak", "v_th", "v_rest", "reset", "refractory")
    LEAK_FIELD_NUMBER: _ClassVar[int]
    V_TH_FIELD_NUMBER: _ClassVar[int]
    V_REST_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    REFRACTORY_FIELD_NUMBER: _ClassVar[int]
    leak: float
    v_th: float
    v_rest: float
    reset: str
    refractory: int
    def __init__(self, leak: _Optional[float] = ..., v_th: _Optional[float] = ..., v_rest: _Optional[float] = ..., reset: _Optional[str] = ..., refractory: _Optional[int] = ...) -> None: ...

class Port(_message.Message):
    __slots__ = ("name", "low", "high", "unit", "size", "max_step", "slew_per_s", "scale", "rest", "bits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_STEP_FIELD_NUMBER: _ClassVar[int]
    SLEW_PER_S_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    REST_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    low: _containers.RepeatedScalarFieldContainer[float]
    high: _containers.RepeatedScalarFieldContainer[float]
    unit: str
    size: int
    max_step: _containers.RepeatedScalarFieldContainer[float]
    slew_per_s: _containers.RepeatedScalarFieldContainer[float]
    scale: _containers.RepeatedScalarFieldContainer[float]
    rest: _containers.RepeatedScalarFieldContainer[float]
    bits: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., low: _Optional[_Iterable[float]] = ..., high: _Optional[_Iterable[float]] = ..., unit: _Optional[str] = ..., size: _Optional[int] = ..., max_step: _Optional[_Iterable[float]] = ..., slew_per_s: _Optional[_Iterable[float]] = ..., scale: _Optional[_Iterable[float]] = ..., rest: _Optional[_Iterable[float]] = ..., bits: _Optional[_Iterable[float]] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("token", "number")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    token: str
    number: int
    def __init__(self, token: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class Pulse(_message.Message):
    __slots__ = ("number", "open")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    number: int
    open: bool
    def __init__(self, number: _Optional[int] = ..., open: bool = ...) -> None: ...

class Fault(_message.Message):
    __slots__ = ("kind", "what", "where", "got", "allowed", "outputs", "todo", "at", "suspect_shots")
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    GOT_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TODO_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    SUSPECT_SHOTS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    what: str
    where: str
    got: str
    allowed: str
    outputs: str
    todo: str
    at: _containers.RepeatedScalarFieldContainer[str]
    suspect_shots: int
    def __init__(self, kind: _Optional[str] = ..., what: _Optional[str] = ..., where: _Optional[str] = ..., got: _Optional[str] = ..., allowed: _Optional[str] = ..., outputs: _Optional[str] = ..., todo: _Optional[str] = ..., at: _Optional[_Iterable[str]] = ..., suspect_shots: _Optional[int] = ...) -> None: ...
