"""Writes HDF5 files that may be wrong in any place: structures that Keras writes, and structures that it never writes.

    file = File()
    file.save(file.group({"a": file.dataset([2], bytes(8))}))

Every function puts one structure at the end of the file and returns its address. Numbers in capitals are sections
of the format specification, version 3.
"""

import struct

UNDEFINED = 2**64 - 1

# IV.A.2.d: little-endian floats and integers, opaque bytes, strings.
F32 = struct.pack("<BBBBIHHBBBBI", 0x11, 0x20, 31, 0, 4, 0, 32, 23, 8, 0, 23, 127)
F16 = struct.pack("<BBBBIHHBBBBI", 0x11, 0x20, 15, 0, 2, 0, 16, 10, 5, 0, 10, 15)
F64 = struct.pack("<BBBBIHHBBBBI", 0x11, 0x20, 63, 0, 8, 0, 64, 52, 11, 0, 52, 1023)
I64 = struct.pack("<BBBBIHH", 0x10, 8, 0, 0, 8, 0, 64)
U8 = struct.pack("<BBBBIHH", 0x10, 0, 0, 0, 1, 0, 8)
OPAQUE16 = struct.pack("<BBBBI", 0x15, 0, 0, 0, 2)


# IV.A.2.d: types that are not supported.
VAX = struct.pack("<BBBBIHHBBBBI", 0x11, 0x61, 31, 0, 4, 0, 32, 23, 8, 0, 23, 127)
TIME = struct.pack("<BBBBIH", 0x12, 0, 0, 0, 4, 32)
BIT_FIELD = struct.pack("<BBBBIHH", 0x14, 0, 0, 0, 4, 0, 32)
REFERENCE = struct.pack("<BBBBI", 0x17, 0, 0, 0, 8)


def compound(kind):
    """A compound type with one member."""
    size = struct.unpack_from("<I", kind, 4)[0]
    return struct.pack("<BHBI", 0x36, 1, 0, size) + b"x\0\0" + kind


def enumeration(kind):
    size = struct.unpack_from("<I", kind, 4)[0]
    return struct.pack("<BHBI", 0x38, 1, 0, size) + kind + b"x\0" + bytes(size)


def array(kind, dim):
    size = struct.unpack_from("<I", kind, 4)[0]
    return struct.pack("<BBBBIBI", 0x3A, 0, 0, 0, size * dim, 1, dim) + kind


def committed(address):
    """IV.B: a shared message, which is stored in another header."""
    return struct.pack("<BBQ", 3, 2, address)


def text_type(length):
    return struct.pack("<BBBBI", 0x13, 0, 0, 0, length)


def dataspace(shape):
    return struct.pack(f"<BBBx4x{len(shape)}Q", 1, len(shape), 0, *shape)


def contiguous(address, length):
    return struct.pack("<BBQQ", 3, 1, address, length)


def attribute(name, value):
    name, value = name.encode() + b"\0", value.encode()
    kind, space = text_type(len(value)), dataspace([])
    pad = lambda part: part + bytes(-len(part) % 8)
    sizes = struct.pack("<BxHHH", 1, len(name), len(kind), len(space))
    return sizes + pad(name) + pad(kind) + pad(space) + value


class File:
    def __init__(self, version=0):
        self.version = version
        self.bytes = bytearray(96)

    def put(self, content):
        self.bytes += bytes(-len(self.bytes) % 8)
        self.bytes += content
        return len(self.bytes) - len(content)

    def header(self, *messages):
        """An object header, IV.A.1.a. Messages are pairs of a type and a body, or triples with flags."""
        body = b""
        for kind, message, *flags in messages:
            message += bytes(-len(message) % 8)
            body += struct.pack("<HHB3x", kind, len(message), *(flags or [0])) + message
        return self.put(struct.pack("<BxHII4x", 1, len(messages), 1, len(body)) + body)

    def dataset(self, shape, data, kind=F32, layout=None, more=()):
        if layout is None:
            layout = contiguous(self.put(data), len(data))
        return self.header((1, dataspace(shape)), (3, kind), (8, layout), *more)

    def names(self, names):
        """A local heap, III.D, and the offset of each name in it."""
        segment, places = bytearray(8), []
        for name in names:
            places.append(len(segment))
            segment += name + b"\0"
            segment += bytes(-len(segment) % 8)
        address = self.put(segment)
        return self.put(b"HEAP" + struct.pack("<B3xQQQ", 0, len(segment), 1, address)), places

    def symbols(self, entries):
        """A symbol table node, III.C. Entries are pairs or triples: offset of the name, object, cache type."""
        node = b"SNOD" + struct.pack("<BxH", 1, len(entries))
        for place, address, *cached in entries:
            node += struct.pack("<QQI4x16x", place, address, *(cached or [0]))
        return self.put(node)

    def tree(self, children, level=0):
        """A B-tree node, III.A.1. Its keys are all 0, which is wrong."""
        node = b"TREE" + struct.pack("<BBHQQ", 0, level, len(children), UNDEFINED, UNDEFINED)
        for child in children:
            node += struct.pack("<QQ", 0, child)
        return self.put(node + bytes(8))

    def group_of(self, tree, heap):
        return self.header((17, struct.pack("<QQ", tree, heap)))

    def group(self, links):
        """A group as Keras writes it, from a dictionary or from pairs. An object may be (address, cache type)."""
        links = list(links.items() if isinstance(links, dict) else links)
        heap, places = self.names([n if isinstance(n, bytes) else n.encode() for n, _ in links])
        entry = lambda place, to: (place, *to) if isinstance(to, tuple) else (place, to)
        node = self.symbols([entry(place, to) for place, (_, to) in zip(places, links)])
        return self.group_of(self.tree([node]), heap)

    def new_group(self, *messages):
        """IV.A.1.b: a group whose links are messages of its header."""
        body = b"".join(struct.pack("<BHB", kind, len(message), 0) + message for kind, message in messages)
        header = b"OHDR" + struct.pack("<BBH", 2, 1, len(body)) + body
        return self.put(header + struct.pack("<I", lookup3(header)))

    def dense_group(self, links):
        """A group whose links lie in a fractal heap, III.G, indexed by a tree, III.A.2."""
        block, ids = b"FHDB" + struct.pack("<BQI", 0, 0, 0), []
        for message in links:
            ids.append(struct.pack("<BIH", 0, len(block), len(message)))
            block += message
        block = self.put(block + bytes(512 - len(block)))
        heap = b"FRHP" + struct.pack("<BHHBI", 0, 7, 0, 0, 512)
        heap += struct.pack("<QQQQ", 0, UNDEFINED, 0, UNDEFINED)
        heap += struct.pack("<QQQQQQQQ", 512, 512, 0, len(links), 0, 0, 0, 0)
        heap += struct.pack("<HQQHHQH", 4, 512, 65536, 32, 1, block, 0)
        heap = self.put(heap + struct.pack("<I", lookup3(heap)))
        records = b"".join(struct.pack("<I", index) + heap_id for index, heap_id in enumerate(ids))
        leaf = b"BTLF" + struct.pack("<BB", 0, 5) + records
        leaf += struct.pack("<I", lookup3(leaf))
        leaf = self.put(leaf + bytes(512 - len(leaf)))
        tree = b"BTHD" + struct.pack("<BBIHHBB", 0, 5, 512, 11, 0, 100, 40)
        tree += struct.pack("<QHQ", leaf, len(ids), len(ids))
        tree = self.put(tree + struct.pack("<I", lookup3(tree)))
        return self.new_group((2, struct.pack("<BBQQ", 0, 0, heap, tree)))

    def save(self, root, **fields):
        """The whole file, II.A. Arguments replace fields of the superblock."""
        f = {"base": 0, "end": len(self.bytes), "sizes": 8, "root": root} | fields
        if self.version == 0:
            block = b"\x89HDF\r\n\x1a\n" + struct.pack("<BBBxBBBxHHI", 0, 0, 0, 0, f["sizes"], f["sizes"], 4, 16, 0)
            block += struct.pack("<QQQQ", f["base"], UNDEFINED, f["end"], UNDEFINED)
            block += struct.pack("<QQI4x16x", 0, f["root"], 0)
        else:
            block = b"\x89HDF\r\n\x1a\n" + struct.pack("<BBBB", 2, f["sizes"], f["sizes"], 0)
            block += struct.pack("<QQQQ", f["base"], UNDEFINED, f["end"], f["root"])
            block += struct.pack("<I", lookup3(block))
        self.bytes[: len(block)] = block
        return bytes(self.bytes)


def hard(name, address):
    """A Link message, IV.A.2.g."""
    return struct.pack("<BBB", 1, 0, len(name)) + name.encode() + struct.pack("<Q", address)


def link(name, kind, value):
    return struct.pack("<BBBB", 1, 8, kind, len(name)) + name.encode() + struct.pack("<H", len(value)) + value


def lookup3(data):
    """Bob Jenkins's hash, as HDF5 uses it for checksums."""
    mask = 0xFFFFFFFF
    rot = lambda x, k: (x << k | x >> (32 - k)) & mask
    a = b = c = (0xDEADBEEF + len(data)) & mask
    at = 0
    while len(data) - at > 12:
        x, y, z = struct.unpack_from("<III", data, at)
        a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
        for k in (4, 6, 8, 16, 19, 4):
            # Each line of the original's mix(), with the names moved on.
            a = (a - c) & mask ^ rot(c, k)
            c = (c + b) & mask
            a, b, c = b, c, a
        at += 12
    if at == len(data):
        return c
    x, y, z = struct.unpack("<III", data[at:] + bytes(12 - (len(data) - at)))
    a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
    for k in (14, 11, 25, 16, 4, 14, 24):
        # Likewise final(): c, a, b in turn.
        c = ((c ^ b) - rot(b, k)) & mask
        a, b, c = b, c, a
    # After seven steps, the original's c is called b here.
    return b
