"""What is measured: works, engines, and the order of a round."""
from collections import namedtuple
from fnmatch import fnmatch

# A work as users name it, `MODEL/KIND:SIZES`, what a table calls it, and whether it runs without being asked for.
Work = namedtuple("Work", "model task title usual")

# One process: an engine on a work, at a precision.
Entry = namedtuple("Entry", "engine dtype")

WORKS = [
    Work("minilm-l6", "encode:1,16", "MiniLM-L6, 1 x 16", True),
    Work("minilm-l6", "encode:1,128", "MiniLM-L6, 1 x 128", True),
    Work("minilm-l6", "encode:16,128", "MiniLM-L6, 16 x 128", True),
    Work("bert-base", "encode:1,16", "BERT base, 1 x 16", True),
    Work("bert-base", "encode:1,128", "BERT base, 1 x 128", True),
    Work("bert-base", "encode:8,128", "BERT base, 8 x 128", True),
    Work("bert-base", "encode:1,512", "BERT base, 1 x 512", True),
    Work("opt-125m", "generate:32,64", "OPT-125M, 32 + 64", True),
    Work("opt-125m", "generate:512,16", "OPT-125M, 512 + 16", True),
    Work("t5-base", "seq2seq:128,32,1", "T5 base, 128 to 32", True),
    Work("t5-base", "seq2seq:128,32,4", "T5 base, 4 beams", True),
    Work("bart-base", "seq2seq:128,32,1", "BART base, 128 to 32", True),
    Work("bart-base", "seq2seq:128,32,4", "BART base, 4 beams", True),
    Work("falcon-rw-1b", "generate:32,16", "Falcon RW 1B, 32 + 16", False),
]

OURS = "rachis"
# The order of a round: what is compared most is close in time.
ENGINES = [OURS, "openvino", "onnxruntime", "ctranslate2", "torch", "candle"]
# bf16x6 is ours: float32 files, whose numbers the tile unit multiplies as sums of bfloat16.
DTYPES = ["float32", "bf16x6", "bfloat16", "int8"]
NAMES = {OURS: "Rachis", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "ctranslate2": "CTranslate2",
         "torch": "torch", "candle": "candle"}
SHORT = {"float32": "f32", "bf16x6": "bf16x6", "bfloat16": "bf16", "int8": "int8"}


def name(work):
    """How a user names a work."""
    return f"{work.model}/{work.task}"


def stored(dtype):
    """What the files of a precision hold."""
    return "float32" if dtype == "bf16x6" else dtype


def flags(dtype):
    """What asks the command line for a precision that the files do not say."""
    return ["--precision", dtype] if dtype == "bf16x6" else []


def kind(work):
    """encode, generate or seq2seq."""
    return work.task.split(":")[0]


def sizes(work):
    """The numbers of a work."""
    return [int(size) for size in work.task.split(":")[1].split(",")]


def choose(patterns):
    """The works that match any of the patterns; without patterns the usual ones."""
    if not patterns:
        return [work for work in WORKS if work.usual]
    chosen = [work for work in WORKS if any(fnmatch(name(work), pattern) for pattern in patterns)]
    for pattern in patterns:
        if not any(fnmatch(name(work), pattern) for work in WORKS):
            raise SystemExit(f"--works {pattern} matches none of: {', '.join(name(work) for work in WORKS)}")
    return chosen


def entries(work, engines):
    """The processes of one round of a work. `engines` is what was found, by name."""
    found = []
    for engine in ENGINES:
        able = engines.get(engine, {"missing": ""})
        if "missing" in able or kind(work) not in able["kinds"] or not has(engine, work):
            continue
        found += [Entry(engine, dtype) for dtype in DTYPES if dtype in able["dtypes"]]
    return found


def has(engine, work):
    """Whether the program for an engine runs the work: candle's BERT, and its T5 without beams."""
    if engine != "candle":
        return True
    return kind(work) == "encode" or (work.model == "t5-base" and sizes(work)[2] == 1)


def plural(count, noun):
    """`1 core`, `2 cores`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
