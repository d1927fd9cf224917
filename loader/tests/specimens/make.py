#!/usr/bin/env python3
"""Writes the specimens beside this script: one small file for every way in which a preset can be wrong.

    python3 make.py

safetensors/       weight files that must be refused
safetensors_good/  unusual weight files that must be accepted
config/            config.json files that must be refused
index/             directories with a model.safetensors.index.json that must be refused
hdf5/              Keras weight files that must be refused, written by hdf5.py
hdf5_good/         unusual Keras weight files that must be accepted
keras_index/       directories with a model.weights.json that must be refused

../specimens.rs lists the expected error of each specimen. The script needs only the standard library; its outputs are
in git.
"""

import json
import shutil
import struct
from pathlib import Path

import hdf5

HERE = Path(__file__).resolve().parent


def write(path, content):
    path = HERE / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def safetensors(header, data=b"", pad=True):
    """A whole file. `header` is bytes, text or an object; an object is padded, to align the data."""
    if isinstance(header, dict):
        header = json.dumps(header, separators=(",", ":"))
        header += " " * (-len(header) % 8 if pad else 0)
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header)) + header + data


def entry(begin, end, shape, dtype="F32", **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


def text(begin, end, shape, dtype="F32"):
    return json.dumps(entry(begin, end, shape, dtype), separators=(",", ":"))


def bad(name, *args, **kwargs):
    write(f"safetensors/{name}.safetensors", safetensors(*args, **kwargs))


def raw(name, content):
    write(f"safetensors/{name}.safetensors", content)


def make_safetensors():
    whole = safetensors({"a": entry(0, 8, [2])}, bytes(8))

    # Cut at every structure of the header.
    raw("empty", b"")
    raw("cut_in_length", whole[:4])
    raw("cut_after_length", whole[:8])
    raw("cut_in_header", whole[:20])
    # Header lengths beyond the end of the file.
    raw("header_longer_than_file", struct.pack("<Q", 1000) + whole[8:])
    raw("header_length_at_limit", struct.pack("<Q", 100_000_000) + whole[8:])
    raw("header_length_over_limit", struct.pack("<Q", 100_000_001) + whole[8:])
    raw("header_length_2_63", struct.pack("<Q", 2**63) + whole[8:])
    raw("header_length_2_64", struct.pack("<Q", 2**64 - 1) + whole[8:])

    # Files of another format with this name. Neither is parsed.
    raw("pickle", b"\x80\x02cos\nsystem\n(S'exit'\ntR.")
    raw("zip", b"PK\x03\x04\x14\0\0\0\0\0" + bytes(16) + b"archive/data.pkl")

    # Headers that are not one JSON object.
    bad("header_empty", b"")
    bad("header_not_utf8", b'{"\xff":' + text(0, 4, [1]).encode() + b"}", bytes(4))
    bad("header_not_json", '{"a": dtype}')
    bad("header_cut_json", '{"a":{"dtype":"F32","sha')
    bad("header_array", "[1, 2]")
    bad("header_after_space", ' {"a":' + text(0, 4, [1]) + "}", bytes(4))
    bad("header_then_more", '{"a":' + text(0, 4, [1]) + "}{}", bytes(4))
    bad("header_deep", '{"__metadata__":' + '{"a":' * 5000 + "1" + "}" * 5000 + "}")
    bad("metadata_not_object", {"__metadata__": "pt", "a": entry(0, 4, [1])}, bytes(4))
    bad("metadata_not_text", {"__metadata__": {"format": 1}, "a": entry(0, 4, [1])}, bytes(4))
    bad("metadata_twice", '{"__metadata__":{},"__metadata__":{}}')
    bad("metadata_key_twice", '{"__metadata__":{"a":"1","a":"2"}}')

    # Entries that are not dtype, shape and offsets.
    bad("entry_not_object", {"a": 1})
    bad("entry_array", '{"a":["F32",[1],[0,4]]}', bytes(4))
    bad("entry_deep", '{"a":' + "[" * 5000 + "]" * 5000 + "}")
    bad("entry_without_dtype", '{"a":{"shape":[1],"data_offsets":[0,4]}}', bytes(4))
    bad("entry_without_shape", '{"a":{"dtype":"F32","data_offsets":[0,4]}}', bytes(4))
    bad("entry_without_offsets", '{"a":{"dtype":"F32","shape":[1]}}', bytes(4))
    bad("entry_field_twice", '{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}', bytes(4))
    bad("entry_unknown_field", {"a": entry(0, 4, [1], strides=[1])}, bytes(4))
    bad("dtype_unknown", {"a": entry(0, 4, [1], "Q4_0")}, bytes(4))
    bad("shape_negative", {"a": entry(0, 4, [-1, -1])}, bytes(4))
    bad("shape_fraction", {"a": entry(0, 4, [1.0])}, bytes(4))
    bad("shape_beyond_u64", {"a": entry(0, 4, [2**64])}, bytes(4))
    bad("offsets_one", '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4]}}', bytes(4))
    bad("offsets_three", '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}', bytes(4))
    bad("offsets_negative", {"a": entry(-4, 0, [1])}, bytes(4))

    # Names that occur twice. A careless reader keeps only the last one.
    bad("name_twice", '{"a":%s,"a":%s}' % (text(0, 4, [1]), text(4, 8, [1])), bytes(8))
    bad("name_twice_same_place", '{"a":%s,"a":%s}' % (text(0, 4, [1]), text(0, 4, [1])), bytes(4))
    bad("name_twice_escaped", r'{"a":%s,"\u0061":%s}' % (text(0, 4, [1]), text(4, 8, [1])), bytes(8))

    # A data section that is not covered exactly once.
    bad("offsets_reversed", {"a": entry(4, 0, [1])}, bytes(4))
    bad("offsets_beyond_end", {"a": entry(0, 8, [2])}, bytes(4))
    bad("offsets_2_63", {"a": entry(2**63, 2**63 + 4, [1])}, bytes(4))
    bad("overlap", {"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12))
    bad("overlap_whole", {"a": entry(0, 8, [2]), "b": entry(0, 8, [2])}, bytes(8))
    bad("hole", {"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12))
    bad("hole_at_start", {"a": entry(4, 8, [1])}, bytes(8))
    bad("trailing_byte", {"a": entry(0, 4, [1])}, bytes(5))
    bad("trailing_without_tensors", {}, b"PK\x05\x06" + bytes(18))

    # Sizes that overflow, or that do not match the data.
    bad("shape_overflow", {"a": entry(0, 4, [2**32, 2**32])}, bytes(4))
    bad("shape_overflow_in_bits", {"a": entry(0, 4, [2**59])}, bytes(4))
    bad("shape_overflow_beside_0", {"a": entry(0, 0, [0, 2**40, 2**40])})
    bad("shape_overflow_many_dims", {"a": entry(0, 4, [2] * 1000)}, bytes(4))
    bad("shape_bomb", {"a": entry(0, 4, [2**40])}, bytes(4))
    bad("shape_larger_than_data", {"a": entry(0, 4, [2])}, bytes(4))
    bad("shape_smaller_than_data", {"a": entry(0, 8, [1])}, bytes(8))
    bad("dtype_of_another_size", {"a": entry(0, 8, [2], "F16")}, bytes(8))
    bad("dtype_of_half_a_byte", {"a": entry(0, 1, [1], "F4")}, bytes(1))


def make_good():
    def good(name, *args, **kwargs):
        write(f"safetensors_good/{name}.safetensors", safetensors(*args, **kwargs))

    values = struct.pack("<2f", 1.5, -2.0)
    good("no_tensors", {})
    good("scalar", {"a": entry(0, 4, [])}, values[:4])
    good("zero_dims", {"a": entry(0, 0, [0, 5]), "b": entry(0, 8, [2]), "c": entry(8, 8, [2, 0])}, values)
    good("metadata", {"__metadata__": {"format": "pt"}, "a": entry(0, 8, [2])}, values)
    good("out_of_order", {"a": entry(4, 8, [1]), "b": entry(0, 4, [1])}, values)
    good("space_after_header", '{"a":' + text(0, 8, [2]) + "}" + " " * 100, values)
    # The header's length is odd, and so the address of all data is odd.
    misaligned = {"a": entry(0, 8, [2]), "b": entry(8, 12, [2], "BF16"), "c": entry(12, 15, [3], "U8")}
    header = json.dumps(misaligned, separators=(",", ":"))
    good("misaligned", header + " " * (1 - len(header) % 2), values + b"\x80\x3f\x00\x40" + b"xyz")
    # One tensor of every dtype, with 8 elements each.
    bits = {1: "F4", 2: "F6_E2M3 F6_E3M2", 3: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ"}
    sizes = [(4, bits[1]), (6, bits[2]), (8, bits[3]), (16, "I16 U16 F16 BF16"), (32, "I32 U32 F32")]
    header, at = {}, 0
    for size, names in reversed(sizes + [(64, "C64 F64 I64 U64")]):
        for name in names.split():
            header[name.lower()], at = entry(at, at + size, [8], name), at + size
    good("every_dtype", header, bytes(at))


def make_config():
    def config(name, content):
        write(f"config/{name}.json", content if isinstance(content, (str, bytes)) else json.dumps(content))

    config("empty", "")
    config("not_json", "model_type: bert\n")
    config("cut", '{"model_type": "bert", "hidden')
    config("array", [{"model_type": "bert"}])
    config("text", '"bert"')
    config("then_more", '{"model_type": "bert"} {}')
    config("deep", '{"model_type": "bert", "x": ' + "[" * 5000 + "]" * 5000 + "}")
    config("not_utf8", b'{"model_type": "\xff"}')
    config("nan", '{"model_type": "bert", "layer_norm_eps": NaN}')
    config("number_overflow", '{"model_type": "bert", "layer_norm_eps": 1e999}')
    config("model_type_missing", {"hidden_size": 32})
    config("model_type_null", {"model_type": None})
    config("model_type_number", {"model_type": 7})
    config("keras_name_number", {"registered_name": 7, "config": {}})
    config("keras_without_config", {"registered_name": "keras_hub>BertBackbone"})
    config("keras_config_array", {"registered_name": "keras_hub>BertBackbone", "config": []})


def make_index():
    one = safetensors({"a": entry(0, 4, [1])}, bytes(4))
    two = safetensors({"b": entry(0, 4, [1])}, bytes(4))
    both = safetensors({"a": entry(0, 4, [1]), "b": entry(4, 8, [1])}, bytes(8))

    def index(name, content, **shards):
        content = content if isinstance(content, str) else json.dumps({"metadata": {}, "weight_map": content})
        write(f"index/{name}/model.safetensors.index.json", content)
        for shard, data in shards.items():
            write(f"index/{name}/{shard}.safetensors", data)

    index("not_json", "weight_map")
    index("array", '[{"a": "one.safetensors"}]', one=one)
    index("without_map", '{"metadata": {"total_size": 4}}')
    index("map_is_array", '{"weight_map": ["one.safetensors"]}', one=one)
    index("map_twice", '{"weight_map": {}, "weight_map": {"a": "one.safetensors"}}', one=one)
    index("shard_is_number", '{"weight_map": {"a": 1}}', one=one)
    index("tensor_twice", '{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}', one=one, two=one)
    index("deep_then_more", '{"weight_map": {}, "metadata": ' + "[" * 5000 + "]" * 5000 + "}{")

    # Names that lead out of the directory. The file that the first two would reach exists.
    index("name_parent", {"a": "../tensor_missing/one.safetensors"})
    index("name_through_itself", {"a": "../name_through_itself/one.safetensors"}, one=one)
    index("name_absolute", {"a": "/etc/passwd"})
    index("name_drive", {"a": "C:one.safetensors"})
    index("name_backslash", {"a": "..\\one.safetensors"})
    index("name_dot", {"a": "."})
    index("name_dot_dot", {"a": ".."})
    index("name_empty", {"a": ""})
    index("name_nul", {"a": "one.safetensors\0"}, one=one)
    index("name_long", {"a": "x" * 5000})
    index("name_in_subdirectory", {"a": "sub/one.safetensors"}, **{"sub/one": one})

    # Indices that the shards contradict.
    index("shard_missing", {"a": "one.safetensors", "b": "two.safetensors"}, one=one)
    index("shard_is_index", {"a": "model.safetensors.index.json"})
    index("shard_corrupt", {"a": "one.safetensors", "b": "two.safetensors"}, one=one, two=two[:-1])
    index("tensor_missing", {"a": "one.safetensors", "c": "one.safetensors"}, one=one)
    index("tensor_elsewhere", {"a": "two.safetensors", "b": "one.safetensors"}, one=one, two=two)
    index("tensor_unlisted", {"a": "one.safetensors"}, one=both)
    index("tensor_in_two_shards", {"a": "one.safetensors", "b": "two.safetensors"}, one=one, two=both)


def make_hdf5():
    eight = bytes(range(8))

    def save(name, build, version=0, **fields):
        file = hdf5.File(version)
        write(f"hdf5/{name}.h5", file.save(build(file), **fields))

    def one(name, *args, **kwargs):
        """A file with one dataset, `a/b`."""
        save(name, lambda file: file.group({"a": file.group({"b": file.dataset(*args, **kwargs)})}))

    file = hdf5.File()
    whole = file.save(file.group({"a": file.dataset([2], eight)}))
    raw = lambda name, content: write(f"hdf5/{name}.h5", content)

    # Files that are not HDF5, are truncated, or have a superblock that Keras does not write.
    raw("empty", b"")
    raw("not_hdf5", b"\x80\x02cos\nsystem\n" + bytes(1000))
    raw("cut_in_superblock", whole[:40])
    raw("cut_after_superblock", whole[:96])
    raw("cut_at_last_byte", whole[:-1])
    save("end_beyond_file", lambda file: file.group({}), end=2**40)
    save("end_2_64", lambda file: file.group({}), end=2**64 - 1)
    save("base_elsewhere", lambda file: file.group({}), base=512)
    save("sizes_of_4", lambda file: file.group({}), sizes=4)
    save("sizes_of_0", lambda file: file.group({}), sizes=0)
    raw("version_unknown", whole[:8] + b"\x09" + whole[9:])
    save("root_beyond_file", lambda file: 2**40)
    save("root_undefined", lambda file: hdf5.UNDEFINED)
    save("root_is_superblock", lambda file: 0)
    save("root_is_dataset", lambda file: file.dataset([2], eight))

    # References out of the file.
    external = (7, struct.pack("<B3xHHQ", 1, 1, 1, 96) + struct.pack("<QQQ", 8, 0, 8))
    nowhere = hdf5.contiguous(hdf5.UNDEFINED, 8)
    one("external_storage", [2], b"", layout=nowhere, more=[external])
    save(
        "external_storage_and_data",
        lambda file: file.group({"a": file.dataset([2], eight, more=[external])}),
    )
    one("virtual", [2], b"", layout=struct.pack("<BBQI", 4, 3, 96, 0))
    save("soft_link_old", lambda file: file.group({"a": (hdf5.UNDEFINED, 2)}))
    save("soft_link_old_to_object", lambda file: file.group({"a": (file.dataset([2], eight), 2)}))
    new = lambda *messages: lambda file: file.new_group(*messages)
    save("soft_link", new((6, hdf5.link("a", 1, b"/etc"))), version=2)
    save("external_link", new((6, hdf5.link("a", 64, b"\0/etc/passwd\0/a\0"))), version=2)
    save("link_of_unknown_kind", new((6, hdf5.link("a", 99, b"x"))), version=2)
    mixed = lambda file, *link: [hdf5.hard("a", file.dataset([2], eight)), hdf5.link("b", *link)]
    save("soft_link_dense", lambda file: file.dense_group(mixed(file, 1, b"/etc")), version=2)
    outside = (64, b"\0/etc/passwd\0/a\0")
    save("external_link_dense", lambda file: file.dense_group(mixed(file, *outside)), version=2)
    save("link_to_type_old", lambda file: file.group({"a": file.header((3, hdf5.F32))}))
    save("link_to_type", lambda file: file.dense_group([hdf5.hard("a", file.header((3, hdf5.F32)))]), version=2)

    # Cycles, and objects that are linked twice.
    def cycle(file):
        group = file.group({"a": 0, "b": 0})
        # Both links lead to the group itself: the addresses in the two entries are overwritten.
        node = file.bytes.index(b"SNOD")
        for entry in (0, 1):
            struct.pack_into("<Q", file.bytes, node + 8 + 40 * entry + 8, group)
        return group

    save("cycle", cycle)

    def cycle_to_ancestor(file):
        """/a/b is /a: one address is changed in a file that Keras could have written."""
        inner = file.group({"b": 0})
        struct.pack_into("<Q", file.bytes, file.bytes.index(b"SNOD") + 16, inner)
        return file.group({"a": inner})

    save("cycle_to_ancestor", cycle_to_ancestor)

    def cycle_newer(file):
        return file.new_group((6, hdf5.hard("a", len(file.bytes))))

    save("cycle_newer", cycle_newer, version=2)

    def cycle_dense(file):
        # The group's header follows its heap and its index, whose size does not depend on the addresses in them.
        root = hdf5.File(2).dense_group([hdf5.hard("a", 0)])
        return file.dense_group([hdf5.hard("a", root)])

    save("cycle_dense", cycle_dense, version=2)

    def twice(file):
        group = file.group({"w": file.dataset([2], eight)})
        return file.group({"a": group, "b": group})

    save("group_twice", twice)

    def dataset_twice(file):
        dataset = file.dataset([2], eight)
        return file.group({"a": dataset, "b": dataset})

    save("dataset_twice", dataset_twice)

    def overlap(file, shift=4):
        at = file.put(bytes(16))
        first, second = (hdf5.contiguous(at + k, 8) for k in (0, shift))
        return file.group({"a": file.dataset([2], b"", layout=first), "b": file.dataset([2], b"", layout=second)})

    save("overlap", overlap)

    def overlap_misaligned(file):
        """Misaligned datasets that share bytes: each of them would be copied."""
        at = file.put(bytes(20001)) + 1
        layout = hdf5.contiguous(at, 20000)
        return file.group({f"{i:02}": file.dataset([5000], b"", layout=layout) for i in range(60)})

    save("overlap_misaligned", overlap_misaligned)
    save("name_twice", lambda file: file.group([("a", file.dataset([2], eight)), ("a", file.dataset([2], eight))]))
    for name, link in [
        ("empty", ""),
        ("dot", "."),
        ("dot_dot", ".."),
        ("slash", "/"),
        ("path", "layers/a/vars/0"),
    ]:
        save(f"name_{name}", lambda file: file.group({link: file.dataset([2], eight)}))
    save("name_not_utf8", lambda file: file.group({b"\xff": file.dataset([2], eight)}))
    save("name_long", lambda file: file.group({"x" * 1100: file.dataset([2], eight)}))

    def deep(file):
        group = file.group({})
        for _ in range(34):
            group = file.group({"a": group})
        return group

    save("deep", deep)

    # Small files that take much time or memory in a reader without bounds.
    def tree_of_itself(file):
        heap, _ = file.names([b"a"])
        tree = file.tree([0] * 64, level=1)
        for child in range(64):
            struct.pack_into("<Q", file.bytes, tree + 24 + 16 * child + 8, tree)
        return file.group_of(tree, heap)

    save("tree_of_itself", tree_of_itself)

    def tree_doubling(file):
        """40 nodes, each of which is both children of the next: 2^40 ways down."""
        heap, places = file.names([b"a"])
        tree = file.tree([file.symbols([])])
        for level in range(1, 41):
            tree = file.tree([tree, tree], level=level)
        return file.group_of(tree, heap)

    save("tree_doubling", tree_doubling)

    def many_long_names(file):
        heap, places = file.names([b"x" * 10000])
        node = file.symbols([(places[0], file.dataset([0], b""))] * 100)
        return file.group_of(file.tree([node] * 200), heap)

    save("many_long_names", many_long_names)

    def continued_by_itself(file):
        header = file.header((16, bytes(16)), (16, bytes(16)))
        struct.pack_into("<QQQQ", file.bytes, header + 24, header + 16, 48, 0, 0)
        struct.pack_into("<QQ", file.bytes, header + 48, header + 16, 48)
        return header

    save("continued_by_itself", continued_by_itself)
    nested = (struct.pack("<BBBBI", 0x19, 0, 0, 0, 16)) * 500
    one("types_nested", [2], eight, kind=nested + hdf5.F32)
    # 300 nested compounds. Each claims 65535 members and has one.
    inner = struct.pack("<BHBI", 0x36, 65535, 0, 8) + b"\0\0"
    one("compounds_nested", [1], eight, kind=inner * 300 + hdf5.F32)
    of_bf16 = (12, struct.pack("<BxHHH", 1, 2, 3008, 8) + b"x" + bytes(7) + inner * 300 + bytes(8) + hdf5.dataspace([]))
    one("compounds_nested_in_attribute", [4], eight, kind=hdf5.OPAQUE16, more=[of_bf16])
    one("compound_of_many", [1], eight, kind=struct.pack("<BHBI", 0x36, 65535, 0, 8) + bytes(16))
    one("enumeration_of_many", [8], eight, kind=struct.pack("<BHBI", 0x38, 65535, 0, 1) + hdf5.U8)

    def header_of_many(file):
        dataset = file.dataset([2], eight)
        struct.pack_into("<HII", file.bytes, dataset + 2, 65535, 1, 2**32 - 8)
        return file.group({"a": dataset})

    save("header_of_many", header_of_many)
    one("header_long", [2], eight, more=[(5, bytes(5000))])

    def records_of_no_length(file):
        group = file.dense_group([hdf5.hard("a", file.dataset([2], eight))])
        at = file.bytes.index(b"BTHD")
        struct.pack_into("<H", file.bytes, at + 10, 0)
        struct.pack_into("<I", file.bytes, at + 34, hdf5.lookup3(bytes(file.bytes[at : at + 34])))
        return group

    save("records_of_no_length", records_of_no_length, version=2)

    # Sizes beyond the end of the file.
    one("shape_bomb", [2**40], eight)
    one("shape_overflow", [2**33, 2**33], eight)
    one("shape_overflow_beside_0", [0, 2**40, 2**40], b"")
    one("shape_larger_than_data", [3], eight)
    one("shape_smaller_than_data", [1], eight)
    one("size_beyond_file", [2**38], b"", layout=hdf5.contiguous(96, 2**40))
    one("address_beyond_file", [2], b"", layout=hdf5.contiguous(2**40, 8))
    one("address_wraps", [2], b"", layout=hdf5.contiguous(2**64 - 4, 8))
    one("data_cut", [2**20], b"", layout=hdf5.contiguous(96, 2**22))

    # Storage that cannot be used in place.
    one("unwritten", [2], b"", layout=nowhere)
    one("compact", [2], b"", layout=struct.pack("<BBH", 3, 0, 8) + eight)
    chunks = struct.pack("<BBBQIII", 3, 2, 2, hdf5.UNDEFINED, 2, 4, 0)
    one("chunked", [2], b"", layout=chunks)
    single = struct.pack("<BBBBBBBBQ", 4, 2, 0, 2, 1, 2, 4, 1, hdf5.UNDEFINED)
    one("chunked_newer", [2], b"", layout=single)
    deflate = (11, struct.pack("<BB6xHHHHI4x", 1, 1, 1, 0, 1, 1, 6))
    one("compressed", [2], b"", layout=chunks, more=[deflate])
    one("layout_unknown", [2], b"", layout=struct.pack("<BBQQ", 9, 1, 96, 8))

    # Element types that are not supported.
    change = lambda kind, at, value: kind[:at] + bytes([value]) + kind[at + 1 :]
    one("big_endian", [2], eight, kind=change(hdf5.F32, 1, 0x21))
    one("big_endian_integers", [1], eight, kind=change(hdf5.I64, 1, 9))
    one("float_of_another_kind", [2], eight, kind=change(hdf5.F32, 16, 126))
    one("float_of_no_bytes", [2], eight, kind=change(hdf5.F32, 4, 0))
    one("opaque_unexplained", [4], eight, kind=hdf5.OPAQUE16)
    explain = lambda value: [(12, hdf5.attribute("dtype", value))]
    one("opaque_of_another_type", [4], eight, kind=hdf5.OPAQUE16, more=explain("float8_e4m3fn"))
    one("strings", [2], eight, kind=hdf5.text_type(4))
    one("vax_floats", [2], eight, kind=hdf5.VAX)
    one("times", [2], eight, kind=hdf5.TIME)
    one("bit_fields", [2], eight, kind=hdf5.BIT_FIELD)
    one("references", [1], eight, kind=hdf5.REFERENCE)
    one("compounds", [2], eight, kind=hdf5.compound(hdf5.F32))
    one("enumerations", [8], eight, kind=hdf5.enumeration(hdf5.U8))
    one("arrays", [1], eight, kind=hdf5.array(hdf5.F32, 2))

    def type_elsewhere(file, at):
        layout = hdf5.contiguous(file.put(eight), 8)
        messages = (1, hdf5.dataspace([2])), (3, hdf5.committed(at(file)), 2), (8, layout)
        return file.group({"a": file.header(*messages)})

    save("type_of_itself", lambda file: type_elsewhere(file, lambda file: len(file.bytes)))
    save("type_beyond_file", lambda file: type_elsewhere(file, lambda file: 2**40))

    def good(name, links, version=0):
        file = hdf5.File(version)
        write(f"hdf5_good/{name}.h5", file.save(links(file)))

    good("no_tensors", lambda file: file.group({}))
    good("scalar", lambda file: file.group({"a": file.dataset([], bytes([0, 0, 0xC0, 0x3F]))}))
    good("rank_of_255", lambda file: file.group({"a": file.dataset([1] * 255, eight[:4])}))
    good(
        "no_elements",
        lambda file: file.group({"a": file.dataset([0, 3], b"", layout=hdf5.contiguous(hdf5.UNDEFINED, 0))}),
    )
    good(
        "every_type",
        lambda file: file.group(
            {
                "a": file.dataset([2], eight),
                "b": file.dataset([4], eight, kind=hdf5.F16),
                "c": file.dataset([1], eight, kind=hdf5.F64),
                "d": file.dataset([1], eight, kind=hdf5.I64),
                "e": file.dataset([8], eight, kind=hdf5.U8),
                "f": file.dataset([2, 2], eight, kind=hdf5.OPAQUE16, more=explain("bfloat16")),
            }
        ),
    )

    def misaligned(file):
        at = file.put(bytes(3) + struct.pack("<ff", 1.5, -2.0))
        return file.group({"a": file.dataset([2], b"", layout=hdf5.contiguous(at + 3, 8))})

    good("misaligned", misaligned)
    good("newer", lambda file: file.new_group((6, hdf5.hard("a", file.dataset([2], eight)))), version=2)
    good(
        "newer_dense",
        lambda file: file.dense_group([hdf5.hard(name, file.dataset([2], eight)) for name in "ab"]),
        version=2,
    )


def make_keras_index():
    def weights(*variables, layers=("a",)):
        file = hdf5.File()

        def layer():
            data = {name: file.dataset([1], bytes(4)) for name in variables}
            return file.group({"vars": file.group(data)})

        return file.save(file.group({"layers": file.group({name: layer() for name in layers})}))

    zero, one, both = weights("0"), weights("1"), weights("0", "1")
    layer = "/layers/a/vars"

    def index(name, content, **shards):
        content = content if isinstance(content, str) else json.dumps({"metadata": {}, "weight_map": content})
        write(f"keras_index/{name}/model.weights.json", content)
        for shard, data in shards.items():
            write(f"keras_index/{name}/{shard}.weights.h5", data)

    index("not_json", "weight_map")
    index("without_map", '{"metadata": {"total_size": 4}}')
    index("map_twice", '{"weight_map": {}, "weight_map": {}}')
    index("layer_twice", f'{{"weight_map": {{"{layer}": "m.weights.h5", "{layer}": "m.weights.h5"}}}}', m=both)
    index("shard_is_number", {layer: 1})
    index("shards_are_numbers", {layer: [1]})
    index("shards_nested", {layer: [["m.weights.h5"]]}, m=both)
    index("name_parent", {layer: "../layer_missing/m.weights.h5"})
    index("name_parent_in_list", {layer: ["m.weights.h5", "../layer_missing/m.weights.h5"]}, m=both)
    index("name_absolute", {layer: "/etc/passwd"})
    index("name_through_itself", {layer: "../name_through_itself/m.weights.h5"}, m=both)
    index("name_drive", {layer: "C:m.weights.h5"})
    index("name_backslash", {layer: "..\\m.weights.h5"})
    index("name_dot", {layer: "."})
    index("name_dot_dot", {layer: ".."})
    index("name_empty", {layer: ""})
    index("name_nul", {layer: "m.weights.h5\0"}, m=both)
    index("name_long", {layer: "x" * 5000})
    index("name_in_subdirectory", {layer: "sub/m.weights.h5"}, **{"sub/m": both})
    index("shard_missing", {layer: ["m.weights.h5", "n.weights.h5"]}, m=zero)
    index("shard_is_index", {layer: "model.weights.json"})
    index("shard_corrupt", {layer: ["m.weights.h5", "n.weights.h5"]}, m=zero, n=one[:-1])
    index("layer_missing", {layer: "m.weights.h5", "/layers/b/vars": "m.weights.h5"}, m=both)
    index("layer_unlisted", {layer: "m.weights.h5"}, m=weights("0", layers=("a", "b")))
    index("layer_elsewhere", {layer: "m.weights.h5", "/layers/b/vars": "n.weights.h5"}, m=zero, n=one)
    index("variable_in_two_shards", {layer: ["m.weights.h5", "n.weights.h5"]}, m=both, n=one)
    index("variable_in_two_spellings", {layer: "m.weights.h5", "layers/a/vars": "n.weights.h5"}, m=zero, n=both)


for old in ("safetensors", "safetensors_good", "config", "index", "hdf5", "hdf5_good", "keras_index"):
    shutil.rmtree(HERE / old, ignore_errors=True)
make_safetensors()
make_good()
make_config()
make_index()
make_hdf5()
make_keras_index()
