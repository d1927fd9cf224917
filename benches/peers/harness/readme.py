"""The table of README.md, between its markers."""
from . import plan
from .summary import ms

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
MINE = [plan.Entry(plan.OURS, "float32"), plan.Entry(plan.OURS, "bfloat16")]
CANDLE, INT8 = plan.Entry("candle", "float32"), plan.Entry("ctranslate2", "int8")


def table(summary, threads):
    """Markdown rows of works. Bold is the fastest of its precision, and int8 where it is the fastest of all."""
    lines = ["| ms a call | Rachis f32 | best f32 peer | candle f32 | Rachis bf16 | best bf16 peer | "
             "CTranslate2 int8 |",
             "|---|---|---|---|---|---|---|"]
    for work in summary.works:
        peers = [summary.best_peer(work, dtype, threads) for dtype in ("float32", "bfloat16")]
        cells = [MINE[0], peers[0], CANDLE, MINE[1], peers[1], INT8]
        values = [entry and summary.value(work, entry, threads) for entry in cells]
        winners = {fastest(values[:3]), fastest(values[3:5], 3)}
        if fastest(values) == 5:
            winners.add(5)
        texts = []
        for place, (entry, value) in enumerate(zip(cells, values)):
            text = f"**{ms(value)}**" if place in winners else ms(value)
            if place in (1, 4) and value is not None:
                text = f"{plan.NAMES[entry.engine]} {text}"
            if value is not None and disagrees(summary, work, entry):
                text += " (!)"
            texts.append(text)
        lines.append(f"| {work.title} | {' | '.join(texts)} |")
    return lines


def fastest(values, start=0):
    """The place of the least value."""
    found = [(value, place) for place, value in enumerate(values, start) if value is not None]
    return min(found, default=(None, None))[1]


def disagrees(summary, work, entry):
    """Whether the outputs differed."""
    line = summary.verdict(work, entry)
    return line is not None and line["verdict"] == "DISAGREES"


def fragment(summary, record, plots):
    """All that stands between the markers; `record` and `plots` as paths from README.md."""
    from .machine import sentence

    threads = summary.threads[0]
    machine = sentence(summary.machine)
    lines = [f"Medians of interleaved rounds, {plan.plural(threads, 'thread')}, on {machine} Random weights of real "
             "sizes; batch x tokens, or prompt + new tokens, or source to new tokens. Bold is the fastest in its "
             "precision, and int8 where it is the fastest of the row."]
    lines += ["", *table(summary, threads), ""]
    if any(disagrees(summary, work, entry) for work in summary.works for entry in summary.entries(work, threads)):
        lines += ["(!) marks outputs that differ from the reference by more than the precision explains.", ""]
    lines += [f"![{text}]({path})" for text, path in plots]
    lines += ["", f"Every figure, with its spread, cold starts and memory: [{record}]({record})."]
    return "\n".join(lines)


def fill(path, text):
    """Puts the text between the markers of a file; fails when they are not there once each, in order."""
    content = path.read_text()
    if content.count(BEGIN) != 1 or content.count(END) != 1 or content.index(BEGIN) > content.index(END):
        raise SystemExit(f"{path.name} needs the lines {BEGIN} and {END}, once each and in this order")
    before, after = content.split(BEGIN)[0], content.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
