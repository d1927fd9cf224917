"""Runs things: builds, prepares, and times one process after the other, in rounds over the engines of a work."""
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from . import plan, tensors
from .machine import Neighbours, cpu_flags

PEERS = Path(__file__).resolve().parent.parent
ROOT = PEERS.parent.parent
# No process of one measurement takes longer than this.
PATIENCE = 900


class Failed(Exception):
    """A process ended badly; the message is its last line."""


class Bench:
    """Where everything is, and what was found."""

    def __init__(self, arguments):
        self.python = arguments.python
        self.cache = Path(arguments.cache)
        self.seconds, self.calls = arguments.seconds, arguments.calls
        self.binaries = Path(arguments.bin) if arguments.bin else None
        self.candle = None
        self.cache.mkdir(parents=True, exist_ok=True)

    def build(self, wanted):
        """Our binaries, unless they were given, and candle's program; of the engines `wanted`, what there is."""
        built = self.binaries is None
        if built:
            for package, binary in (("rachis-cli", "rachis"), ("rachis-benches", "kprobe")):
                cargo("-p", package, "--bin", binary, cwd=ROOT)
            self.binaries = target_directory() / "release"
        if not (self.binaries / "rachis").exists():
            raise SystemExit(f"there is no rachis in {self.binaries}")
        engines = {plan.OURS: {"version": version(self.binaries / "rachis", built), "dtypes": ["float32", "bfloat16"],
                               "kinds": ["encode", "generate", "seq2seq"]}}
        if "amx_bf16" in cpu_flags():
            engines[plan.OURS]["dtypes"].append("bf16x6")
        engines.update(json.loads(self.worker("probe")))
        if "candle" in wanted:
            engines["candle"] = self.build_candle()
        return {name: engines[name] for name in wanted}

    def build_candle(self):
        """candle's program, for this processor."""
        target = self.cache / "target-candle"
        environment = dict(os.environ, CARGO_TARGET_DIR=str(target), RUSTFLAGS="-C target-cpu=native")
        try:
            cargo("--locked", cwd=PEERS / "candle", env=environment)
        except Failed as error:
            return {"missing": str(error)}
        self.candle = target / "release" / "peers-candle"
        lock = (PEERS / "candle" / "Cargo.lock").read_text()
        number = lock.split('name = "candle-core"\nversion = "')[1].split('"')[0]
        return {"version": f"candle {number}", "dtypes": ["float32"], "kinds": ["encode", "seq2seq"]}

    def prepare(self, works, engines):
        """Models, and what engines make of them, before anything is timed; returns what failed."""
        reasons, failed = {}, []
        for work in works:
            root = self.root(work)
            if root not in reasons:
                root.mkdir(exist_ok=True)
                self.worker("model", root, work.model)
                reasons[root] = {}
            self.ids(work)
            for entry in plan.entries(work, engines):
                if entry not in reasons[root]:
                    reasons[root][entry] = self.convert(entry, root)
                if reasons[root][entry]:
                    failed.append((work, entry, reasons[root][entry]))
        return failed

    def convert(self, entry, root):
        """A model in an engine's own format; why not, if that fails."""
        if entry.engine in (plan.OURS, "candle"):
            return None
        try:
            self.worker("prepare", entry.engine, root, entry.dtype)
        except Failed as error:
            return str(error)
        return None

    def time(self, work, entry, threads):
        """One measurement: a line of the raw record."""
        output = self.output(work, entry)
        output.unlink(missing_ok=True)
        if entry.engine == plan.OURS:
            command = [self.binaries / "rachis", "bench", "--json", "--model", self.root(work) / plan.stored(entry.dtype),
                       "--work", work.task, "--threads", threads, *plan.flags(entry.dtype)]
        elif entry.engine == "candle":
            command = [self.candle, self.root(work) / entry.dtype, work.task, self.seconds, self.calls,
                       self.ids(work), output]
        else:
            command = [self.python, PEERS / "workers" / "worker.py", "time", entry.engine, self.root(work),
                       work.task, "--threads", threads, "--dtype", entry.dtype, "--seconds", self.seconds,
                       "--calls", self.calls, "--ids", self.ids(work), "--output", output]
        into_page_cache(self.files(work, entry))
        neighbours, start = Neighbours(), time.perf_counter()
        line = json.loads(output_of(command, environment(threads)).splitlines()[-1])
        line.update(model=work.model, dtype=entry.dtype, threads=threads, others=neighbours.cores(time.perf_counter() - start))
        return line

    def kprobe(self, dtype, shapes):
        """The machine's limits and our products in `f32` or `bf16`, or None without the binary."""
        binary = self.binaries / "kprobe"
        if not binary.exists():
            return None
        precision = "bf16" if dtype == "bf16" else "strict"
        found = output_of([binary, "--json", "--dtype", dtype, "--precision", precision,
                           *(["--shapes", shapes] if shapes else [])])
        return json.loads(found.splitlines()[-1])

    def worker(self, *arguments):
        """A task of the peers' interpreter; what it prints."""
        return output_of([self.python, PEERS / "workers" / "worker.py", *arguments], environment(os.cpu_count()))

    def root(self, work):
        """The directory of a model."""
        return self.cache / work.model

    def files(self, work, entry):
        """The files that an engine opens: of its precision, or the model in ONNX's format."""
        root = self.root(work)
        return [path for path in root.rglob("*") if path.is_file() and not path.name.startswith("result-")
                and (plan.stored(entry.dtype) in str(path.relative_to(root)) or path.name.startswith("model.onnx"))]

    def ids(self, work):
        """The file of a work's token ids, made when it is not there: the same ones everywhere."""
        batch, seq = (plan.sizes(work) if plan.kind(work) == "encode" else (1, plan.sizes(work)[0]))[:2]
        path = self.cache / f"ids-{batch}-{seq}.safetensors"
        if not path.exists():
            dice = random.Random(batch * 1000 + seq)
            rows = [[dice.randrange(10, 30000) for _ in range(seq)] for _ in range(batch)]
            tensors.write_ids(path, {"token_ids": rows})
        return path

    def output(self, work, entry):
        """The file of a result that is compared."""
        task = work.task.replace(":", "-").replace(",", "-")
        return self.cache / work.model / f"result-{task}-{entry.engine}-{entry.dtype}.safetensors"


def environment(threads):
    """What tells every engine's thread pools, and keeps Python from leaving files behind."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    return dict(os.environ, PYTHONDONTWRITEBYTECODE="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false",
                TF_CPP_MIN_LOG_LEVEL="3", OPENVINO_TELEMETRY_OPT_OUT="1", **{name: str(threads) for name in names})


def output_of(command, env=None):
    """What a command prints; its last line of complaint when it fails."""
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise Failed(f"stopped after {PATIENCE} s") from None
    except OSError as error:
        raise Failed(f"{Path(command[0]).name}: {error.strerror}") from None
    if done.returncode != 0 or (not done.stdout.strip() and "--json" in command):
        complaint = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()
        raise Failed(complaint[-1])
    return done.stdout


def into_page_cache(files):
    """Reads files, so that none of them comes from the disk when it is opened next."""
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def cargo(*arguments, cwd, env=None):
    """A release build, its progress on standard error."""
    command = ["cargo", "build", "--release", "--quiet", *arguments]
    try:
        done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    except OSError as error:
        raise Failed(f"cargo: {error.strerror}") from None
    if done.returncode != 0:
        raise Failed(f"cargo build failed in {cwd.name}")


def target_directory():
    """Where cargo puts what it builds."""
    found = output_of(["cargo", "metadata", "--no-deps", "--format-version", "1", "--manifest-path",
                       ROOT / "Cargo.toml"])
    return Path(json.loads(found)["target_directory"])


def version(binary, built):
    """Our version; of a binary that was built here and now, also the commit of the work tree."""
    number = output_of([binary, "--version"]).split()[-1]
    if not built:
        return f"Rachis {number}"
    try:
        commit = output_of(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]).strip()
    except Failed:
        return f"Rachis {number}"
    return f"Rachis {number} ({commit})"
