#!/usr/bin/env python3
"""Writes the specimens beside this script: one small file for every way in which a preset can be wrong.

    python3 make.py

safetensors/       weight files that must be refused
safetensors_good/  unusual weight files that must work
config/            config.json files that must be refused
index/             directories with a model.safetensors.index.json that must be refused

What each must lead to is in ../specimens.rs. Only the standard library is needed; the outputs are in git.
"""

import json
import shutil
import struct
from pathlib import Path

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
    # Lengths that the file does not have.
    raw("header_longer_than_file", struct.pack("<Q", 1000) + whole[8:])
    raw("header_length_at_limit", struct.pack("<Q", 100_000_000) + whole[8:])
    raw("header_length_over_limit", struct.pack("<Q", 100_000_001) + whole[8:])
    raw("header_length_2_63", struct.pack("<Q", 2**63) + whole[8:])
    raw("header_length_2_64", struct.pack("<Q", 2**64 - 1) + whole[8:])

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

    # Names that occur twice, of which a careless reader sees the last only.
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

    # Sizes that overflow, or that the data does not have.
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
    # The header's length is odd, and with it the address of all data.
    misaligned = {"a": entry(0, 8, [2]), "b": entry(8, 12, [2], "BF16"), "c": entry(12, 15, [3], "U8")}
    header = json.dumps(misaligned, separators=(",", ":"))
    good("misaligned", header + " " * (1 - len(header) % 2), values + b"\x80\x3f\x00\x40" + b"xyz")
    # One tensor of every dtype, 8 elements each; what is not a float is in the file but not converted.
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

    # Names that lead elsewhere. The file that the first two would reach exists.
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


for old in ("safetensors", "safetensors_good", "config", "index"):
    shutil.rmtree(HERE / old, ignore_errors=True)
make_safetensors()
make_good()
make_config()
make_index()
