"""Our products under the machine's ceilings: GFLOP/s against operations for each byte that must be touched.

The bytes are those of the weights as stored, and of the activations and outputs in float32.
"""
from . import svg

LEFT, RIGHT, TOP, BOTTOM = 60, 20, 62, 44
SIZES = {"f32": 4, "bf16": 2, "f16": 2}
COLOURS = {"f32": svg.ORANGE, "bf16": svg.BLUE}
# A bandwidth, its name, and how far up its slope that stands.
PLACES = (("dram", "memory", 0.2), ("l3", "L3", 0.25), ("l2", "L2", 0.7))


def draw(kprobes):
    """Points of the picked plans with weights `[N, K]`, hot filled and cold as rings, one thread."""
    points = [point for kprobe in kprobes for point in rows(kprobe)]
    peaks = ceilings(kprobes)
    reads = kprobes[0]["peaks"]["read_gbps"]
    drawing = svg.Drawing(760, 460, "Matrix products under the ceilings of one core")
    xs = svg.Log([point[1] for point in points], LEFT, drawing.width - RIGHT)
    ys = svg.Log([point[2] for point in points] + list(peaks.values()), drawing.height - BOTTOM, TOP)
    drawing.text(8, 18, drawing.title, style="title")
    grid(drawing, xs, ys)
    roof(drawing, xs, ys, peaks, reads)
    for dtype, x, y, cold in points:
        drawing.dot(xs(x), ys(y), COLOURS[dtype], cold)
    x = 8
    for dtype in peaks:
        for label, cold in ((f"{dtype}, hot", False), (f"{dtype}, weights cold", True)):
            drawing.dot(x + 5, 35, COLOURS[dtype], cold)
            drawing.text(x + 14, 39, label)
            x += 24 + 6.6 * len(label)
    return drawing.source()


def rows(kprobe):
    """(dtype, operations a byte, GFLOP/s, whether cold) of each picked plan."""
    found = []
    for row in kprobe["gemm"]:
        if not row["picked"] or row["layout"] != "nk":
            continue
        m, n, k = row["m"], row["n"], row["k"]
        intensity = 2 * m * n * k / (SIZES[row["dtype"]] * n * k + 4 * m * (n + k))
        found += [(row["dtype"], intensity, row[f"{state}_gflops"], state == "cold") for state in ("hot", "cold")]
    return found


def ceilings(kprobes):
    """The peak of each precision that was measured; bfloat16 without instructions for it has that of float32."""
    found = {}
    for kprobe in kprobes:
        dtype, peaks = kprobe["gemm"][0]["dtype"], kprobe["peaks"]
        found[dtype] = peaks["f32_gflops"] if dtype == "f32" else peaks["bf16_gflops"] or peaks["f32_gflops"]
    return found


def grid(drawing, xs, ys):
    """Decades of both axes, and what they are."""
    for value, label in xs.decades():
        drawing.line((xs(value), TOP), (xs(value), drawing.height - BOTTOM))
        drawing.text(xs(value), drawing.height - BOTTOM + 14, label, "middle")
    for value, label in ys.decades():
        drawing.line((LEFT, ys(value)), (drawing.width - RIGHT, ys(value)))
        drawing.text(LEFT - 6, ys(value) + 4, label, "end")
    drawing.text((LEFT + drawing.width - RIGHT) / 2, drawing.height - 10, "operations a byte", "middle")
    drawing.text(8, TOP - 8, "GFLOP/s", style="small")


def roof(drawing, xs, ys, peaks, reads):
    """Peaks as level lines, bandwidths as slopes up to the highest of them."""
    top = max(peaks.values())
    for dtype, peak in peaks.items():
        style = f'stroke="{COLOURS[dtype]}" stroke-dasharray="6 3"'
        drawing.line((LEFT, ys(peak)), (drawing.width - RIGHT, ys(peak)), style)
        drawing.text(drawing.width - RIGHT, ys(peak) - 4, f"{dtype} peak {peak:.0f}", "end", "small")
    low, bottom = 10.0 ** xs.low, 10.0 ** ys.low
    for key, label, part in PLACES:
        gbps = reads[key]
        start, end = max(low, bottom / gbps), min(top / gbps, 10.0 ** xs.high)
        if start >= end:
            continue
        drawing.line((xs(start), ys(start * gbps)), (xs(end), ys(end * gbps)), f'stroke="{svg.GREY}"')
        at = start * (end / start) ** part
        drawing.text(xs(at) - 4, ys(at * gbps) - 4, f"{label} {gbps:.0f} GB/s", "end", "small")
