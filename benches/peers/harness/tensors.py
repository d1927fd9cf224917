"""safetensors by the standard library alone: what a comparison of results needs."""
import json
import struct
import sys
from array import array

CODES = {"F32": "f", "F64": "d", "I32": "i", "I64": "q", "U32": "I"}


def read(path):
    """Name to (shape, array of numbers)."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    found = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        begin, end = about["data_offsets"]
        numbers = array(CODES[about["dtype"]], data[begin:end])
        if sys.byteorder == "big":
            numbers.byteswap()
        found[name] = (about["shape"], numbers)
    return found


def write_ids(path, matrices):
    """A file of int64 matrices, by name."""
    about, data = {}, b""
    for name, rows in matrices.items():
        numbers = array("q", [number for row in rows for number in row])
        if sys.byteorder == "big":
            numbers.byteswap()
        begin, data = len(data), data + numbers.tobytes()
        about[name] = {"dtype": "I64", "shape": [len(rows), len(rows[0])], "data_offsets": [begin, len(data)]}
    header = json.dumps(about).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + data)
