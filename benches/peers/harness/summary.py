"""From raw lines to figures: medians of rounds, their spread, ratios."""
from statistics import median

from . import plan


class Summary:
    """The lines of a raw record, by what they are."""

    def __init__(self, lines):
        def of(kind):
            return [line for line in lines if line["kind"] == kind]

        self.machine = of("machine")[0]
        self.engines = {line["engine"]: line for line in of("engine")}
        self.times, self.failed, self.agreements = of("time"), of("failed"), of("agree")
        self.kprobes = of("kprobe")
        self.threads = sorted({line["threads"] for line in self.times})
        seen = {(line["model"], line["work"]) for line in self.times}
        self.works = [work for work in plan.WORKS if (work.model, work.task) in seen]

    def rounds(self, work, entry, threads, key="p50"):
        """A figure of every round, in their order."""
        wanted = (work.model, work.task, *entry, threads)
        return [line[key] for line in self.times
                if (line["model"], line["work"], line["engine"], line["dtype"], line["threads"]) == wanted
                and line.get(key) is not None]

    def value(self, work, entry, threads, key="p50"):
        """The median of the rounds, or None."""
        values = self.rounds(work, entry, threads, key)
        return median(values) if values else None

    def least(self, work, entry, threads):
        """The least call of all rounds, or None: what others on the machine disturb the least."""
        return min(self.rounds(work, entry, threads, "min"), default=None)

    def spread(self, work, entry, threads):
        """Largest less least of the rounds, over the median; None of a single round."""
        values = self.rounds(work, entry, threads)
        return (max(values) - min(values)) / median(values) if len(values) > 1 else None

    def entries(self, work, threads):
        """Who was measured."""
        found = [plan.Entry(engine, dtype) for engine in plan.ENGINES for dtype in plan.DTYPES]
        return [entry for entry in found if self.rounds(work, entry, threads)]

    def best_peer(self, work, dtype, threads, among=None, figure=None):
        """The fastest peer in this precision by a figure, else by `value`; candle has a place of its own."""
        figure = figure or self.value
        rivals = [entry for entry in self.entries(work, threads)
                  if entry.dtype == dtype and entry.engine in (among or set(plan.ENGINES) - {plan.OURS, "candle"})]
        return min(rivals, key=lambda entry: figure(work, entry, threads), default=None)

    def ratio(self, work, dtype, threads):
        """(our time over the best peer's, its least and largest in a round, the peer), or None."""
        mine, peer = plan.Entry(plan.OURS, dtype), self.best_peer(work, plan.stored(dtype), threads)
        if peer is None or not self.rounds(work, mine, threads):
            return None
        ratio = self.value(work, mine, threads) / self.value(work, peer, threads)
        of_rounds = [a / b for a, b in zip(self.rounds(work, mine, threads), self.rounds(work, peer, threads))]
        return ratio, min(of_rounds), max(of_rounds), peer

    def ratio_of_least(self, work, dtype, threads):
        """(our least call over the least of the peers', the peer), or None."""
        mine = self.least(work, plan.Entry(plan.OURS, dtype), threads)
        peer = self.best_peer(work, plan.stored(dtype), threads, figure=self.least)
        return None if mine is None or peer is None else (mine / self.least(work, peer, threads), peer)

    def verdict(self, work, entry):
        """What the comparison of outputs said."""
        wanted = (work.model, work.task, *entry)
        return next((line for line in self.agreements
                     if (line["model"], line["work"], line["engine"], line["dtype"]) == wanted), None)


def ms(value):
    """A time as tables have it: three digits."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"
