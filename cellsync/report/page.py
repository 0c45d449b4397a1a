"""Pages: the lines that a text output is made of, and the two ways they come out.

Everything that is printed for people goes through here, so here is where data is disarmed: no
value of any database can forge a line, a colour or a reading direction.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from cellsync.masking import disarm
from cellsync.model import (
    Secrets,
)

if TYPE_CHECKING:
    from rich.console import JustifyMethod, RenderableType

SHORT = 60
"""The longest value that is shown whole unless more is asked for, in characters."""
PROSE = 600
"""The same for sentences, which may quote a value."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How text is to come out; the outputs for machines take no notice of it."""

    terminal: bool = False
    width: int = 80
    """Columns of the terminal; lines for a pipe or a file are never wrapped."""
    verbose: int = 0
    """1 or more: show every difference, every column and every value whole."""
    color: bool = True
    """False for a terminal without colours (NO_COLOR); no effect elsewhere."""
    secrets: Secrets = field(default_factory=Secrets)
    """The columns that are not shown: those of the report that is rendered."""

    @property
    def short(self) -> int | None:
        """Return how many characters of a value are shown, or None for all."""
        return None if self.verbose else SHORT

    @property
    def prose(self) -> int | None:
        """Return how many characters of a sentence are shown, or None for all."""
        return None if self.verbose else PROSE


class Tone(str, Enum):
    """What a line is to its reader; the values are rich's styles."""

    PLAIN = ""
    TITLE = "bold"
    STRONG = "bold yellow"
    GOOD = "green"
    BAD = "bold red"
    QUIET = "dim"


@dataclass(frozen=True)
class Line:
    """One fact, indented by ``depth`` steps; an empty text is an empty line."""

    text: str
    depth: int = 0
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True)
class Grid:
    """A table whose first row is its heading; ``tones`` pair with the rows below it.

    The first ``whole`` columns are never broken, for they hold what people copy; from column
    ``numbers`` on, cells are set to the right. A ``terminal_only`` grid repeats at a glance what
    lines say as well.
    """

    rows: tuple[tuple[str, ...], ...]
    tones: tuple[Tone, ...]
    whole: int
    numbers: int
    terminal_only: bool = False


Block = Line | Grid


def compose(blocks: Iterable[Block], style: Style) -> Iterator[str]:
    """Yield the blocks as text that ends with a newline: one plain line each, or with colours."""
    if style.terminal:
        return _terminal(blocks, style)
    return (f"{line}\n" for block in blocks for line in _plain(block))


def _plain(block: Block) -> Sequence[str]:
    if isinstance(block, Line):
        return ["  " * block.depth + disarm(block.text) if block.text else ""]
    return [] if block.terminal_only else _columns(block)


def _columns(grid: Grid) -> Sequence[str]:
    rows = [[disarm(cell) for cell in row] for row in grid.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_spaced(row, widths) for row in rows]


def _spaced(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _terminal(blocks: Iterable[Block], style: Style) -> Iterator[str]:
    """Let rich lay the blocks out. Values reach it as Text, never as markup.

    rich is imported only here: cron and pipes do not pay for it.
    """
    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="standard" if style.color else None,
        legacy_windows=False,
        width=style.width,
        no_color=not style.color,
        markup=False,
        emoji=False,
        highlight=False,
    )
    for block in blocks:
        with console.capture() as capture:
            console.print(_rich(block))
        yield capture.get()


def _rich(block: Block) -> RenderableType:
    from rich.padding import Padding
    from rich.text import Text

    if isinstance(block, Grid):
        return _rich_table(block)
    text = Text(disarm(block.text) or " ", style=block.tone.value, overflow="fold")
    return Padding(text, (0, 0, 0, 2 * block.depth), expand=False)


def _rich_table(grid: Grid) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(grid.rows[0]):
        justify: JustifyMethod = "right" if index >= grid.numbers else "left"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=index < grid.whole)
    for row, tone in zip(grid.rows[1:], grid.tones, strict=True):
        table.add_row(*(Text(disarm(cell)) for cell in row), style=tone.value)
    return table
