#!/usr/bin/env python3
"""One task for a peer in a process of its own: what the harness starts with the interpreter that has the peers.

    worker.py probe                                      which engines there are, one JSON object
    worker.py model ROOT NAME                            a model with random weights
    worker.py prepare ENGINE ROOT DTYPE                  the model in the engine's own format
    worker.py time ENGINE ROOT WORK --threads ... [...]  a measurement, one JSON object with the keys of
                                                         `rachis bench --json`
"""
import argparse
import importlib
import json
import os
import sys
import time
import warnings

ENGINES = ("torch", "onnxruntime", "openvino", "ctranslate2")
MOST_CALLS = 2000


def engine(name):
    """The module of an engine."""
    return importlib.import_module(f"engines.{name}")


def probe(_):
    """Each engine with its version and precisions, or why it is not there."""
    report = {}
    for name in ENGINES:
        module = engine(name)
        try:
            dtypes = list(module.dtypes()) if hasattr(module, "dtypes") else list(module.DTYPES)
            report[name] = {"version": module.version(), "dtypes": dtypes, "kinds": module.KINDS}
        except Exception as error:  # whatever keeps an engine from loading is a reason to skip it
            report[name] = {"missing": f"{type(error).__name__}: {error}".splitlines()[0]}
    print(json.dumps(report))


def model(arguments):
    """Makes a model."""
    import models

    models.make(arguments.root, arguments.name)


def prepare(arguments):
    """Converts a model."""
    engine(arguments.engine).prepare(arguments.root, arguments.dtype)


class Job:
    """A measurement as an engine sees it."""

    def __init__(self, arguments):
        from safetensors.numpy import load_file

        self.root, self.dtype, self.threads = arguments.root, arguments.dtype, arguments.threads
        self.kind, sizes = arguments.work.split(":")
        sizes = [int(size) for size in sizes.split(",")]
        self.new = 0 if self.kind == "encode" else sizes[1]
        self.beams = sizes[2] if self.kind == "seq2seq" else 1
        self.ids = load_file(arguments.ids)["token_ids"].astype("int64")
        self.mask = self.ids * 0 + 1


def measure(arguments):
    """Opens, calls once, then calls for the time given; writes the last call's result."""
    from safetensors.numpy import save_file

    peer = engine(arguments.engine).Engine(Job(arguments))
    base = peak_resident_mib()
    start = time.perf_counter()
    peer.open()
    peer.call()
    cold = time.perf_counter() - start

    started, times = time.perf_counter(), []
    while len(times) < arguments.calls or (
            time.perf_counter() - started < arguments.seconds and len(times) < MOST_CALLS):
        start = time.perf_counter()
        found = peer.call()
        times.append(time.perf_counter() - start)
    peak = peak_resident_mib()
    times.sort()
    save_file(peer.result(found), arguments.output)

    def at(part):
        return times[round((len(times) - 1) * part)] * 1e3

    print(json.dumps({"engine": arguments.engine, "work": arguments.work, "threads": arguments.threads,
                      "dtype": arguments.dtype, "cold_ms": cold * 1e3, "p50": at(0.5), "p99": at(0.99),
                      "min": at(0), "n": len(times), "rss_mib": peak, "base_mib": base}))


def peak_resident_mib():
    """The largest resident set that this process has had, where the system tells."""
    try:
        with open("/proc/self/status") as file:
            line = next(line for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return round(int(line.split()[1]) / 1024, 1)


def main():
    """Reads the task from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    tasks = parser.add_subparsers(required=True)

    def task(name, function, *positional):
        each = tasks.add_parser(name)
        each.set_defaults(function=function)
        for argument in positional:
            each.add_argument(argument)
        return each

    task("probe", probe)
    task("model", model, "root", "name")
    task("prepare", prepare, "engine", "root", "dtype")
    timed = task("time", measure, "engine", "root", "work")
    timed.add_argument("--threads", type=int, default=1)
    timed.add_argument("--dtype", default="float32")
    timed.add_argument("--seconds", type=float, default=3)
    timed.add_argument("--calls", type=int, default=5)
    timed.add_argument("--ids", required=True)
    timed.add_argument("--output", required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    # Only the result goes to standard output, whatever the engines print.
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    arguments.function(arguments)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
