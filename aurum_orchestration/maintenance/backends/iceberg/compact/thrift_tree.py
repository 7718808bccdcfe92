"""Thrift structs (compact protocol) as plain trees, with every field kept, also those nobody here knows.

A struct is ``{field id: (kind, value)}`` in the order read, a list ``(kind of its elements, [elements])``,
a string ``bytes``; kinds are those of :class:`thrift.Thrift.TType`. What is read and written without a
change has the same tree again: nothing is declared, so nothing can be dropped.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.protocol.TProtocol import checkIntegerLimits
from thrift.Thrift import TType
from thrift.transport.TTransport import TMemoryBuffer

Struct: TypeAlias = dict[int, tuple[int, Any]]

I16, I32, I64 = TType.I16, TType.I32, TType.I64
STRING, STRUCT, LIST = TType.STRING, TType.STRUCT, TType.LIST

_BITS = {TType.I16: 16, TType.I32: 32, TType.I64: 64}
_READ = {
    TType.BOOL: TCompactProtocol.readBool,
    TType.BYTE: TCompactProtocol.readByte,
    TType.I16: TCompactProtocol.readI16,
    TType.I32: TCompactProtocol.readI32,
    TType.I64: TCompactProtocol.readI64,
    TType.DOUBLE: TCompactProtocol.readDouble,
    TType.STRING: TCompactProtocol.readBinary,
    TType.UUID: TCompactProtocol.readUuid,
}
_WRITE = {
    TType.BOOL: TCompactProtocol.writeBool,
    TType.BYTE: TCompactProtocol.writeByte,
    TType.I16: TCompactProtocol.writeI16,
    TType.I32: TCompactProtocol.writeI32,
    TType.I64: TCompactProtocol.writeI64,
    TType.DOUBLE: TCompactProtocol.writeDouble,
    TType.STRING: TCompactProtocol.writeBinary,
    TType.UUID: TCompactProtocol.writeUuid,
}


class NotThriftError(ValueError):
    """The bytes are no struct in thrift's compact protocol."""


def read_struct(data: bytes) -> tuple[Struct, int]:
    """The struct at the start of ``data``, and how many bytes it takes. Raises NotThriftError."""
    transport = TMemoryBuffer(data)
    protocol = TCompactProtocol(transport, string_length_limit=len(data), container_length_limit=len(data))
    try:
        return _read_struct(protocol), transport.cstringio_buf.tell()
    except Exception as error:  # the library raises of every kind on garbage: EOFError, KeyError, AssertionError
        raise NotThriftError(f"no thrift struct: {error or type(error).__name__}") from error


def write_struct(struct: Struct) -> bytes:
    """The struct's bytes, its fields by rising id."""
    transport = TMemoryBuffer()
    _write_struct(TCompactProtocol(transport), struct)
    return bytes(transport.getvalue())


def _read_struct(protocol: TCompactProtocol) -> Struct:
    struct: Struct = {}
    protocol.readStructBegin()
    while True:
        _, kind, identity = protocol.readFieldBegin()
        if kind == TType.STOP:
            break
        checkIntegerLimits(identity, 16)
        struct[identity] = kind, _read(protocol, kind)
        protocol.readFieldEnd()
    protocol.readStructEnd()
    return struct


def _read(protocol: TCompactProtocol, kind: int) -> Any:
    if kind == TType.STRUCT:
        return _read_struct(protocol)
    if kind in (TType.LIST, TType.SET):
        inner, count = protocol.readListBegin()
        values = [_read(protocol, inner) for _ in range(count)]
        protocol.readListEnd()
        return inner, values
    if kind == TType.MAP:
        keys, values_, count = protocol.readMapBegin()
        pairs = [(_read(protocol, keys), _read(protocol, values_)) for _ in range(count)]
        protocol.readMapEnd()
        return keys, values_, pairs
    value = _READ[kind](protocol)
    if kind in _BITS:
        checkIntegerLimits(value, _BITS[kind])  # the library does so only when it writes
    return value


def _write_struct(protocol: TCompactProtocol, struct: Struct) -> None:
    protocol.writeStructBegin("")
    for identity in sorted(struct):
        kind, value = struct[identity]
        protocol.writeFieldBegin("", kind, identity)
        _write(protocol, kind, value)
        protocol.writeFieldEnd()
    protocol.writeFieldStop()
    protocol.writeStructEnd()


def _write(protocol: TCompactProtocol, kind: int, value: Any) -> None:
    if kind == TType.STRUCT:
        _write_struct(protocol, value)
    elif kind in (TType.LIST, TType.SET):
        inner, elements = value
        protocol.writeListBegin(inner, len(elements))
        for element in elements:
            _write(protocol, inner, element)
        protocol.writeListEnd()
    elif kind == TType.MAP:
        keys, values, pairs = value
        protocol.writeMapBegin(keys, values, len(pairs))
        for key, item in pairs:
            _write(protocol, keys, key)
            _write(protocol, values, item)
        protocol.writeMapEnd()
    else:
        _WRITE[kind](protocol, value)
