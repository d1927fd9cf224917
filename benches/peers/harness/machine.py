"""The machine by its features: cores, instruction sets, caches. Never by a name."""
import os
import re
from pathlib import Path

from .plan import plural

# What the system calls a feature, what a reader does; the first that begins a group names it.
FEATURES = [("avx2", "AVX2"), ("avx512f", "AVX-512"), ("avx512_bf16", "AVX512-BF16"), ("avx512_vnni", "VNNI"),
            ("avx512_fp16", "AVX512-FP16"), ("amx_bf16", "AMX-BF16"), ("amx_int8", "AMX-INT8"),
            ("asimd", "NEON"), ("bf16", "BF16"), ("i8mm", "I8MM"), ("sve", "SVE")]


def describe():
    """What a record says of the machine, and what its name takes from it."""
    flags = cpu_flags()
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "isa": [title for flag, title in FEATURES if flag in flags],
        "caches": caches(),
        "memory_gib": round(memory_bytes() / 2**30),
        "virtual": "hypervisor" in flags,
    }


def sentence(machine):
    """One line of a record."""
    caches = ", ".join(f"{cache['name']} {size(cache['kib'])}{' shared' if cache['shared'] else ' a core'}"
                       for cache in machine["caches"])
    where = "of a virtual machine" if machine["virtual"] else ""
    return " ".join(f"{plural(machine['cores'], 'core')} {where} with {', '.join(machine['isa']) or 'no SIMD named'};"
                    f" caches: {caches or 'unknown'}; {machine['memory_gib']} GiB of memory.".split())


def slug(machine):
    """The part of a file name that says which machine: its widest product unit."""
    for title in ("AMX-BF16", "AVX512-BF16", "AVX-512", "AVX2", "NEON"):
        if title in machine["isa"]:
            return re.sub("[^a-z0-9]", "", title.lower().replace("amx-bf16", "amx"))
    return "scalar"


def size(kib):
    """`32 KiB`, `2 MiB`."""
    return f"{kib} KiB" if kib < 1024 else f"{kib // 1024} MiB"


def cpu_flags():
    """The features that the system lists for the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(line.group(1).split()) if line else set()


def caches():
    """The data and unified caches of the first core."""
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, text, cpus = ((index / file).read_text().strip() for file in
                                       ("level", "type", "size", "shared_cpu_list"))
        except OSError:
            continue
        if kind != "Instruction":
            kib = int(text[:-1]) * (1024 if text.endswith("M") else 1)
            found.append({"name": f"L{level}", "kib": kib, "shared": not cpus.isdigit()})
    return found


def memory_bytes():
    """All of the memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


class Neighbours:
    """How many cores others kept busy, or took, while a child of ours ran: the noise of a measurement."""

    def __init__(self):
        self.before = self.busy()
        self.own = self.children()

    def cores(self, seconds):
        """Cores' worth of time of others since the beginning; None where the system does not say."""
        after = self.busy()
        if after is None or self.before is None or seconds <= 0:
            return None
        return round(max(0.0, (after - self.before) - (self.children() - self.own)) / seconds, 2)

    @staticmethod
    def children():
        """Processor seconds of this process and its children that ended."""
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    @staticmethod
    def busy():
        """Processor seconds that the whole machine was not idle, stolen time included."""
        try:
            with open("/proc/stat") as file:
                fields = [int(field) for field in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return None
        idle = fields[3] + fields[4]
        return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")
