"""Latency beside the peers: grouped bars on a logarithmic axis."""
from . import plan, readme, svg
from .summary import ms

LEFT, RIGHT, TOP, THICK, GAP = 150, 120, 62, 9, 9


def draw(summary, threads):
    """A group for each work, a bar for each column of the table."""
    groups = [(work, series(summary, work, threads)) for work in summary.works]
    height = TOP + sum(len(bars) * THICK + GAP for _, bars in groups) + 26
    drawing = svg.Drawing(760, height, f"Milliseconds a call, {plan.plural(threads, 'thread')}: shorter is faster")
    values = [value for _, bars in groups for _, _, value, _ in bars]
    axis = svg.Log([min(values) / 1.2, max(values)], LEFT, drawing.width - RIGHT)
    drawing.text(8, 18, drawing.title, style="title")
    legend(drawing, [bar for _, bars in groups for bar in bars])
    for value, label in axis.decades():
        drawing.line((axis(value), TOP - 6), (axis(value), height - 24))
        drawing.text(axis(value), height - 10, f"{label} ms", "middle")
    y = TOP
    for work, bars in groups:
        drawing.text(LEFT - 8, y + len(bars) * THICK / 2 + 4, work.title, "end")
        for _, colour, value, note in bars:
            drawing.bar(LEFT, y, axis(value) - LEFT, THICK - 1, colour)
            drawing.text(axis(value) + 4, y + THICK - 1.5, f"{ms(value)} {note}".strip(), style="small")
            y += THICK
        y += GAP
    return drawing.source()


def series(summary, work, threads):
    """(label, colour, value, note) of the bars of a work."""
    peers = [summary.best_peer(work, dtype, threads) for dtype in ("float32", "bfloat16")]
    columns = [("Rachis f32", svg.ORANGE, readme.MINE[0]), ("best f32 peer", svg.BLUE, peers[0]),
               ("candle f32", svg.GREEN, readme.CANDLE), ("Rachis bf16", svg.APRICOT, readme.MINE[1]),
               ("best bf16 peer", svg.SKY, peers[1]), ("CTranslate2 int8", svg.GREY, readme.INT8)]
    bars = []
    for label, colour, entry in columns:
        value = entry and summary.value(work, entry, threads)
        if value is not None:
            bars.append((label, colour, value, plan.NAMES[entry.engine] if "peer" in label else ""))
    return bars


def legend(drawing, bars):
    """Each label once, under the title."""
    x = 8
    for label, colour in dict((label, colour) for label, colour, _, _ in bars).items():
        drawing.bar(x, 30, 10, 10, colour)
        drawing.text(x + 14, 39, label)
        x += 24 + 6.6 * len(label)
