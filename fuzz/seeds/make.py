#!/usr/bin/env python3
"""Writes the seeds of the targets whose inputs are several files in one: preset_dir, safetensors_index and tokenizer_dir.

    python3 make.py

Models are those of testkit/fixtures with one layer and smaller sizes, and with other values. How files become one
input is in ../fuzz_targets/files/parts.rs and ../fuzz_targets/preset_dir/directory.rs. Only the standard library is
needed; the outputs are in git.
"""

import json
import re
import shutil
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIXTURES = HERE / "../../testkit/fixtures"
sys.path.insert(0, str(HERE / "../../loader/tests/specimens"))
sys.dont_write_bytecode = True
import hdf5

SEPARATOR = b"\xc1\xfe"
NAMES = """config.json model.safetensors model.safetensors.index.json model.weights.h5 model.weights.json
    generation_config.json tokenizer.json vocab.txt modules.json 1_Pooling/config.json pytorch_model.bin
    model-00001-of-00002.safetensors model-00002-of-00002.safetensors model_00000.weights.h5
    model_00001.weights.h5 a b""".split()
PLAIN, TENSORS, HDF5, LINK, SECRET, DIRECTORY, BLOB_0, BLOB_1 = 0, 4, 8, 10, 12, 13, 14, 15
OUTSIDE = b"../../../outside/"


def write(target, name, content):
    path = HERE / target / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def text(value):
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def directory(name, files, snapshot=False, trick=0):
    """A seed of preset_dir, of pairs of a name and its content, or triples with the kind between."""
    out = bytes([snapshot + 2 * trick])
    for name_of, *kind, content in files:
        number = NAMES.index(name_of) if name_of in NAMES else 31
        line = b"" if name_of in NAMES else name_of.encode() + b"\n"
        out += SEPARATOR + bytes([number, *(kind or [PLAIN])]) + line + text(content)
    write("preset_dir", name, out)


def values(count):
    some = (0.5, -0.25, 1.0, 0.125, -1.0, 0.75, 0.0)
    return struct.pack(f"<{count}f", *(some[i % 7] for i in range(count)))


def size(shape):
    count = 1
    for dim in shape:
        count *= dim
    return count


def tensors(shapes):
    """A safetensors file without its first eight bytes."""
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 4 * size(shape)
        header[name], at = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}, end
    header = text(header)
    return header + b" " * (-len(header) % 8) + values(at // 4)


def tree(shapes):
    """An HDF5 file of Keras's, of paths and shapes."""
    file, root = hdf5.File(), {}
    for path, shape in shapes.items():
        *groups, name = path.split("/")
        group = root
        for part in groups:
            group = group.setdefault(part, {})
        group[name] = file.dataset(shape, values(size(shape)))
    make = lambda group: file.group({k: make(v) if isinstance(v, dict) else v for k, v in sorted(group.items())})
    return file.save(make(root))


def model(name, sizes, fields):
    """The configuration and the shapes of a fixture, smaller."""
    config = json.loads((FIXTURES / name / "hf/config.json").read_text())
    config = {k: v for k, v in config.items() if k in ("model_type", *fields) or isinstance(v, bool)}
    file = (FIXTURES / name / "hf/model.safetensors").read_bytes()
    header = json.loads(file[8 : 8 + struct.unpack_from("<Q", file)[0]])
    kept = lambda name: not re.search(r"\.[1-9]\.|__metadata__|^cls\.", name)
    if config["model_type"] == "t5":
        # The second and third parts of a layer are numbered, too.
        kept = lambda name: not re.search(r"block\.[1-9]\.|__metadata__", name)
    shapes = {k: [sizes.get(dim, dim) for dim in v["shape"]] for k, v in header.items() if kept(k)}
    return config | fields, shapes


BERT = {
    "vocab_size": 5,
    "hidden_size": 4,
    "intermediate_size": 3,
    "max_position_embeddings": 6,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "type_vocab_size": 2,
    "hidden_act": "gelu_new",
}
KERAS = {
    "registered_name": "keras_hub>BertBackbone",
    "config": {
        "vocabulary_size": 5,
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 4,
        "intermediate_dim": 3,
        "max_sequence_length": 6,
        "num_segments": 2,
    },
}
BERT_SIZES = {97: 5, 32: 4, 56: 3, 40: 6, 4: 2, 8: 2}


def make_directories():
    bert = model("bert_tanh", BERT_SIZES, BERT)
    opt = {"vocab_size": 5, "hidden_size": 4, "word_embed_proj_dim": 4, "ffn_dim": 3, "max_position_embeddings": 4}
    opt |= {"num_attention_heads": 2, "num_hidden_layers": 1, "activation_function": "relu"}
    opt = model("opt_pre", {97: 5, 60: 4, 62: 6, 64: 3}, opt)
    falcon = {"vocab_size": 5, "hidden_size": 4, "ffn_hidden_size": 3, "num_attention_heads": 2, "num_kv_heads": 2}
    falcon |= {"num_hidden_layers": 1, "layer_norm_epsilon": 1e-5}
    falcon = model("falcon_rw", {97: 5, 40: 4, 64: 3, 120: 12}, falcon)
    bart = {"vocab_size": 5, "d_model": 4, "max_position_embeddings": 4}
    for tower in ("encoder", "decoder"):
        bart |= {f"{tower}_attention_heads": 2, f"{tower}_ffn_dim": 3, f"{tower}_layers": 1}
    bart = model("bart_sym", {97: 5, 30: 4, 44: 3, 42: 6}, bart)
    t5 = {"vocab_size": 5, "d_model": 4, "d_ff": 3, "d_kv": 2, "num_heads": 1, "num_layers": 1}
    t5 |= {"num_decoder_layers": 1, "relative_attention_num_buckets": 4, "relative_attention_max_distance": 8}
    t5 = model("t5_relu_tied", {97: 5, 32: 4, 48: 3, 36: 2, 3: 1}, t5 | {"feed_forward_proj": "relu"})

    for name, (config, shapes) in {"bert": bert, "opt": opt, "falcon": falcon, "bart": bart, "t5": t5}.items():
        directory(name, [("config.json", config), ("model.safetensors", TENSORS, tensors(shapes))])
        directory(f"{name}_without_weights", [("config.json", config)])

    config, shapes = bert
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    is_second = lambda name: "layer.0" in name
    places = {name: second if is_second(name) else first for name in shapes}
    index = ("model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    halves = [tensors({k: v for k, v in shapes.items() if is_second(k) == half}) for half in (False, True)]
    directory(
        "bert_sharded",
        [("config.json", config), index, (first, TENSORS, halves[0]), (second, TENSORS, halves[1])],
    )
    # A snapshot of a cache, where files are links to blobs; kept small by having one tensor.
    a = tensors({"a": [1]})
    length = struct.pack("<Q", len(a) - 4)
    one = ("model.safetensors.index.json", {"weight_map": {"a": "a"}})
    hf = ("config.json", {"model_type": "bert"})
    directory("snapshot", [("config.json", BLOB_0, hf[1]), one, ("a", BLOB_1, length + a)], snapshot=True)
    directory("blobs_of_no_snapshot", [hf, one, ("a", BLOB_1, length + a)])

    # Links that lead somewhere. One byte is the number of a name.
    to_b = bytes([NAMES.index("b")])
    directory("shard_out", [hf, one, ("a", SECRET + 16, b"")])
    directory("shard_out_by_path", [hf, one, ("a", LINK, OUTSIDE + b"secret.safetensors")], snapshot=True)
    directory("shard_inside", [hf, one, ("a", LINK, to_b), ("b", TENSORS, a)])
    directory("shard_itself", [hf, one, ("a", LINK, b"./a")])
    directory("shard_to_config", [hf, one, ("a", LINK, b"config.json")])
    directory("shard_by_another_out", [hf, one, ("a", LINK, to_b), ("b", SECRET + 16, b"")])
    directory("config_out", [("config.json", SECRET, b""), ("model.safetensors", TENSORS, a)])
    directory("config_nowhere", [("config.json", LINK, b"nowhere")])
    directory("weights_are_directory", [hf, ("model.safetensors", DIRECTORY, b"")])
    directory("weights_are_device", [hf, ("model.safetensors", LINK, b"/dev/zero")])
    directory("index_names_parent", [hf, ("model.safetensors.index.json", {"weight_map": {"a": "../a"}})])

    # Files beside the weights.
    pooling = ("1_Pooling/config.json", {"word_embedding_dimension": 4})
    beside = [("generation_config.json", {"eos_token_id": [2, 3], "max_new_tokens": 7}), pooling]
    beside += [("vocab.txt", "[PAD]\n\u00e9\n".encode()), ("modules.json", [1]), ("tokenizer.json", b"{")]
    directory("beside", [hf, ("model.safetensors", TENSORS, a), *beside, ("x.json", [])])
    directory("vocabulary_out", [hf, ("vocab.txt", SECRET, b""), ("1_Pooling", LINK, OUTSIDE[:-1])], trick=2)
    for trick in range(10):
        directory(f"trick_{trick}", [hf, pooling, ("vocab.txt", b"[PAD]"), ("a", LINK, OUTSIDE[:-1])], trick=trick)
    directory("vocabulary_out_of_snapshot", [hf, ("vocab.txt", LINK, OUTSIDE + b"secret.json")], snapshot=True)
    directory("pickle", [hf, ("pytorch_model.bin", b"\x80\x02cos\nsystem\n")])

    # Keras.
    keras = ("config.json", KERAS)
    shapes = json.loads((FIXTURES / "bert_tanh/keras_h5_manifest.json").read_text())
    shapes = {e["path"]: [BERT_SIZES.get(d, d) for d in e["shape"]] for e in shapes if "encoder_1" not in e["path"]}
    directory("keras", [keras, ("model.weights.h5", HDF5, tree(shapes))])
    zero, one = (tree({f"layers/a/vars/{i}": [1]}) for i in (0, 1))
    names = ["model_00000.weights.h5", "model_00001.weights.h5"]
    index = ("model.weights.json", {"weight_map": {"/layers/a/vars": names}})
    directory("keras_sharded", [keras, index, (names[0], HDF5, zero), (names[1], HDF5, one)])
    directory("keras_shard_out", [keras, index, (names[0], HDF5, zero), (names[1], SECRET + 32, b"")])
    directory("weights_of_keras", [hf, ("model.weights.h5", HDF5, zero)])


def make_indices():
    def index(name, content, *shards):
        content = content if isinstance(content, bytes) else text({"metadata": {}, "weight_map": content})
        write("safetensors_index", name, SEPARATOR.join([content, *shards]))

    a, b, both = (tensors({name: [1] for name in names}) for names in ("a", "b", "ab"))
    index("two", {"a": "a", "b": "b"}, a, b)
    index("one_of_two_tensors", {"a": "b", "b": "b"}, b"", both)
    index("none", {})
    index("no_map", b'{"metadata":{}}', a)
    index("map_twice", b'{"weight_map":{},"weight_map":{"a":"a"}}', a)
    index("tensor_twice", b'{"weight_map":{"a":"a","\\u0061":"b"}}', a, a)
    index("tensor_in_two_shards", {"a": "a", "b": "b"}, a, both)
    index("tensor_elsewhere", {"a": "b", "b": "a"}, a, b)
    index("tensor_missing", {"a": "a", "b": "a"}, a)
    index("tensor_unlisted", {"a": "a"}, both)
    index("shard_missing", {"a": "a", "b": "b"}, a)
    index("shard_corrupt", {"a": "a", "b": "b"}, a, b[:-1])
    index("shard_with_its_length", {"a": "a"}, struct.pack("<Q", len(a) - 4) + a)
    index("shard_of_long_name", {"a": "model-00001-of-00002.safetensors"}, b"", b"", b"", a)
    for name, shard in [("parent", "../a"), ("dot", "."), ("absolute", "/dev/null"), ("itself", "config.json")]:
        index(f"name_{name}", {"a": shard}, a)


TOKENIZER = """config.json tokenizer_config.json tokenizer.json special_tokens_map.json added_tokens.json vocab.txt
    vocab.json merges.txt spiece.model sentencepiece.bpe.model assets/tokenizer/vocabulary.txt
    assets/tokenizer/vocabulary.spm""".split()


def make_tokenizers():
    """The small directories of the tokenizer's goldens, and KerasHub's."""
    names = "byt5 japanese_char japanese_wordpiece bert_uncased_vocab bert_uncased_5 mpnet herbert opt roberta falcon"
    for path in [FIXTURES / "text/tokenizers" / name for name in names.split()] + [FIXTURES / "text/keras/bert_cased"]:
        parts = [(path / name).read_bytes() if (path / name).is_file() else b"-" for name in TOKENIZER]
        write("tokenizer_dir", path.name, SEPARATOR.join(parts))
    config = text({"model_type": "t5"})
    piece = lambda kind, piece, score: bytes([10, len(piece) + 9, 10, len(piece)]) + piece + (
        b"\x15" + struct.pack("<f", score) + bytes([24, kind]))
    pieces = [(3, b"<pad>", 0), (3, b"</s>", 0), (2, b"<unk>", 0), (1, "▁".encode(), -2), (1, b"a", -3), (4, b"b", -1)]
    model = b"".join(bytes([10, len(body := piece(*p)[2:])]) + body for p in pieces)
    write("tokenizer_dir", "t5", SEPARATOR.join([config, text({"extra_ids": 2})] + [b"-"] * 6 + [model]))
    unigram = {"version": "1.0", "added_tokens": [], "normalizer": {"type": "NFKC"},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": None, "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁", -1.0], ["a", -2.5]]}}
    write("tokenizer_dir", "unigram", SEPARATOR.join([text({"model_type": "falcon"}), b"-", text(unigram)]))


for target in ("preset_dir", "safetensors_index", "tokenizer_dir"):
    shutil.rmtree(HERE / target, ignore_errors=True)
make_directories()
make_indices()
make_tokenizers()
