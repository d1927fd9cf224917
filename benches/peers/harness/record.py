"""The dated record: what was measured, on what, and every figure."""
from . import plan, readme
from .machine import sentence
from .summary import ms

NOTES = """\
One process for each measurement, alone on the machine, in rounds over all engines of a work; a figure is the median
over rounds of a round's median call. Spread is the largest round less the least, over the median. Cold is the time to
open the model and make the first call in a process that has loaded its libraries, files in page cache. Memory is the
peak resident set of the whole process, mapped files included, and for the peers their interpreter. Weights are random,
of the real sizes. ONNX Runtime and OpenVINO read the model exported to ONNX, OpenVINO compiles it for the work's
sizes; CTranslate2 reads its own format, converted before for each precision; torch runs the modules of transformers
as they are; candle is built for this processor. Not measured: torch.compile, generation by ONNX Runtime and OpenVINO
(which takes a library more), candle beyond BERT and greedy T5."""


def text(summary, plots):
    """The record as Markdown."""
    machine, run = summary.machine, summary.machine["run"]
    found = [line["version"] for line in summary.engines.values() if "missing" not in line]
    lines = [f"# {machine['date']}: beside the peers", "",
             f"Machine: {sentence(machine)} Load before the run: {run['load']:.2f}. "
             f"{rounds(summary)}, {run['seconds']:g} s and at least "
             f"{plan.plural(run['calls'], 'call')} each (ours 3 s and 10 calls). Engines: {', '.join(found)}.", "", NOTES]
    if run.get("quick"):
        lines += ["", "**A trial of the harness (`--quick`): these figures compare nothing.**"]
    lines += missing(summary) + noise(summary)
    for threads in summary.threads:
        lines += ["", f"## {plan.plural(threads, 'thread')}", "", *readme.table(summary, threads), "",
                  "Ours over the best peer of the same precision, with the least and the largest round, and our "
                  "least call over the least of the peers':", "", *ratios(summary, threads)]
    lines += scaling(summary)
    lines += ["", "## Every measurement", "", *everything(summary)]
    lines += ["", "## Outputs against torch in float32, on the same ids", "", *agreements(summary)]
    if plots:
        lines += ["", "## Plots", "", *[f"![{name}]({path})" for name, path in plots]]
    return "\n".join(lines) + "\n"


def rounds(summary):
    """How many rounds there were, of works by kind and threads where they differ."""
    most = {}
    for line in summary.times:
        of = most.setdefault((line["work"].split(":")[0], line["threads"]), set())
        of.add(line["round"])
    counts = {of: len(numbers) for of, numbers in sorted(most.items())}
    if len(set(counts.values())) == 1:
        return plan.plural(min(counts.values()), "round")
    return ", ".join(f"{kind} on {plan.plural(threads, 'thread')} in {plan.plural(count, 'round')}"
                     for (kind, threads), count in counts.items())


def missing(summary):
    """Engines that are not installed, and measurements that failed."""
    lines = [f"- {plan.NAMES[name]}: not measured, {line['missing']}"
             for name, line in summary.engines.items() if "missing" in line]
    lines += sorted({f"- {plan.NAMES[line['engine']]} {plan.SHORT[line['dtype']]}, {line['model']} {line['work']}: "
                     f"failed, {line['reason']}" for line in summary.failed})
    return ["", "Skipped:", "", *lines] if lines else []


def noise(summary):
    """What others did on the machine meanwhile."""
    others = sorted(line["others"] for line in summary.times if line.get("others") is not None)
    if not others:
        return []
    loud = sum(value > 0.1 for value in others)
    return ["", f"Others on the machine, meanwhile: {others[len(others) // 2]:.2f} cores in the median measurement, "
            f"{others[-1]:.2f} in the worst; above 0.1 in {loud} of {len(others)}."]


def ratios(summary, threads):
    """Ours over theirs."""
    ours = [dtype for dtype in plan.DTYPES
            if any(summary.value(work, plan.Entry(plan.OURS, dtype), threads) for work in summary.works)]
    heads = [f"{plan.SHORT[dtype]}{of}" for dtype in ours for of in ("", ", least calls")]
    lines = [f"| work | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for work in summary.works:
        cells = []
        for dtype in ours:
            found = summary.ratio(work, dtype, threads)
            if found is None:
                cells += ["-", "-"]
                continue
            ratio, least, largest, peer = found
            rounds = f" ({least:.2f} to {largest:.2f})" if least < largest else ""
            cells.append(f"{ratio:.2f}{rounds} of {plan.NAMES[peer.engine]}")
            ratio, peer = summary.ratio_of_least(work, dtype, threads)
            cells.append(f"{ratio:.2f} of {plan.NAMES[peer.engine]}")
        lines.append(f"| {work.title} | {' | '.join(cells)} |")
    return lines


def scaling(summary):
    """How many times faster more threads are."""
    if len(summary.threads) < 2:
        return []
    one, most = summary.threads[0], summary.threads[-1]
    lines = ["", f"## {plan.plural(most, 'thread')} against {one}", "",
             "| work | Rachis f32 | Rachis bf16 | best peers |", "|---|---|---|---|"]
    for work in summary.works:
        rivals = [summary.best_peer(work, dtype, most) for dtype in ("float32", "bfloat16")]
        cells = [times(summary, work, entry, one, most) for entry in readme.MINE]
        peers = [f"{plan.NAMES[entry.engine]} {plan.SHORT[entry.dtype]} {times(summary, work, entry, one, most)}"
                 for entry in rivals if entry]
        lines.append(f"| {work.title} | {' | '.join(cells)} | {', '.join(peers) or '-'} |")
    return lines


def times(summary, work, entry, one, most):
    """One entry's speed at `most` threads over that at `one`."""
    before, after = (summary.value(work, entry, threads) for threads in (one, most))
    return "-" if before is None or after is None else f"{before / after:.2f}"


def everything(summary):
    """A row for each engine, precision, work and number of threads."""
    lines = ["| work | engine | threads | median ms | spread | least ms | cold ms | peak MiB |",
             "|---|---|---|---|---|---|---|---|"]
    for work in summary.works:
        for threads in summary.threads:
            for entry in summary.entries(work, threads):
                spread = summary.spread(work, entry, threads)
                value, cold, memory = (summary.value(work, entry, threads, key)
                                       for key in ("p50", "cold_ms", "rss_mib"))
                least = summary.least(work, entry, threads)
                lines.append(f"| {work.title} | {plan.NAMES[entry.engine]} {plan.SHORT[entry.dtype]} | {threads} | "
                             f"{ms(value)} | {'-' if spread is None else f'{spread:.0%}'} | {ms(least)} | {ms(cold)} | "
                             f"{'-' if memory is None else round(memory)} |")
    return lines


def agreements(summary):
    """What the comparison of outputs said, disagreements first."""
    order = ["DISAGREES", "not compared", "near tie", "agrees"]
    lines = ["| verdict | work | engine | detail |", "|---|---|---|---|"]
    titles = {(work.model, work.task): work.title for work in plan.WORKS}
    for line in sorted(summary.agreements, key=lambda line: order.index(line["verdict"])):
        lines.append(f"| {line['verdict']} | {titles[line['model'], line['work']]} | {plan.NAMES[line['engine']]} "
                     f"{plan.SHORT[line['dtype']]} | {line['detail']} |")
    return lines
