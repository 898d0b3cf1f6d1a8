"""Fields of a protobuf message as bytes: a tag, a length and the content.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

# Field numbers of onnx.proto, as the tag of a length-delimited field.
MODEL_GRAPH = bytes([7 << 3 | 2])
GRAPH_INITIALIZER = bytes([5 << 3 | 2])
TENSOR_RAW_DATA = bytes([9 << 3 | 2])


def field_header(tag: bytes, size: int) -> bytes:
    """What stands before the `size` bytes of a field."""
    varint = bytearray()
    while size > 0x7F:
        varint.append(size & 0x7F | 0x80)
        size >>= 7
    varint.append(size)
    return tag + bytes(varint)
