"""What a page is made of: chapters of sections, sections of figures, each figure with its number in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from offline_eval.report.reading import Reading


@dataclass(frozen=True, eq=False)
class Figure:
    """A drawing with its number in words.

    Attributes:
        title: what is shown.
        drawing: the SVG element.
        number: the figure's number in words, which stand beside it.
        caption: how to read it; may be empty.
    """

    title: str
    drawing: Element
    number: str
    caption: str = ""


@dataclass(frozen=True)
class KeyNumber:
    """A line of the table at the top.

    Attributes:
        name: of the quantity.
        reading: the number with its interval.
        meaning: in a few words, for whoever does not know the quantity.
        signed: whether it is a difference.
    """

    name: str
    reading: Reading
    meaning: str = ""
    signed: bool = False


@dataclass(frozen=True)
class TableRow:
    """A line of a table with several numbers.

    Attributes:
        name: of the line.
        readings: one number a column, with its interval.
        meaning: in a few words; may be empty.
    """

    name: str
    readings: Sequence[Reading]
    meaning: str = ""


@dataclass(frozen=True)
class Table:
    """The numbers behind figures.

    Attributes:
        columns: their heads, that of the names first.
        rows: from the top.
    """

    columns: Sequence[str]
    rows: Sequence[TableRow]


@dataclass(frozen=True)
class Section:
    """Figures on one question.

    Attributes:
        title: the question, or what is shown.
        figures: in the order of the page.
        skipped: what was not measured, each with its reason.
        points: sentences, each on its own.
        commands: what a reader can type.
        numbers: a table of them.
        table: beneath the figures.
    """

    title: str
    figures: Sequence[Figure] = ()
    skipped: Sequence[str] = ()
    points: Sequence[str] = ()
    commands: Sequence[str] = ()
    numbers: Sequence[KeyNumber] = ()
    table: Table | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.figures or self.skipped or self.points or self.commands or self.numbers or self.table)


@dataclass(frozen=True)
class Chapter:
    """One run on the page.

    Attributes:
        heading: what was run.
        finding: one sentence that says what was found.
        numbers: the key numbers.
        sections: in the order of the page.
        notes: what a reader should know.
    """

    heading: str
    finding: str
    numbers: Sequence[KeyNumber]
    sections: Sequence[Section]
    notes: Sequence[str] = ()


def sentence(words: str) -> str:
    """Words with a full stop; the first letter stays, since it may be that of a file's name."""
    return words if words.endswith(".") else f"{words}."


def listed(words: Sequence[str]) -> str:
    """One, two and three."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
