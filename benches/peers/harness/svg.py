"""As much of SVG as the plots need: texts, lines, a logarithmic axis, colours for light and dark pages."""
import math
from xml.sax.saxutils import escape

# Middle tones, that stand on white and on near black; text and grid follow the reader's theme.
ORANGE, APRICOT, BLUE, SKY, GREEN, GREY = "#d9622b", "#f0a26b", "#3b7dd8", "#8ab4ea", "#4c9a5b", "#8a8f98"
STYLE = """\
text { font: 11px system-ui, sans-serif; fill: #24292f }
.small { font-size: 9px }
.title { font-size: 13px; font-weight: 600 }
.grid { stroke: #8a8f98; stroke-opacity: .3 }
@media (prefers-color-scheme: dark) { text { fill: #d0d7de } }"""


class Drawing:
    """Elements, then a file."""

    def __init__(self, width, height, title):
        self.width, self.height, self.title = width, height, title
        self.parts = []

    def text(self, x, y, text, anchor="start", style=""):
        """A line of text; y is its base."""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{escape(text)}</text>')

    def line(self, start, end, style='class="grid"'):
        """A straight line."""
        (x1, y1), (x2, y2) = start, end
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>')

    def bar(self, x, y, width, height, colour):
        """A filled rectangle."""
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>')

    def dot(self, x, y, colour, hollow=False):
        """A point, filled or a ring."""
        fill = f'fill="none" stroke="{colour}" stroke-width="1.5"' if hollow else f'fill="{colour}" fill-opacity=".8"'
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" {fill}/>')

    def source(self):
        """The file."""
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}" role="img">')
        return "\n".join([head, f"<title>{escape(self.title)}</title>", f"<style>{STYLE}</style>", *self.parts,
                          "</svg>", ""])


class Log:
    """A logarithmic axis from pixel `start` to pixel `end`, over whole decades unless told otherwise."""

    def __init__(self, values, start, end):
        low, high = min(values), max(values)
        self.low, self.high = math.floor(math.log10(low)), math.ceil(math.log10(high))
        if self.low == self.high:
            self.high += 1
        self.start, self.end = start, end

    def __call__(self, value):
        """The pixel of a value."""
        part = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def decades(self):
        """Where grid lines are, with what is written at them."""
        return [(10.0 ** power, f"{10.0 ** power:g}") for power in range(self.low, self.high + 1)]
