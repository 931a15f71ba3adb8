"""Books for people: the tops of all books as a table, and one book as a ladder with bars."""

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from ferrox.cli.books import BookLevels
from ferrox.cli.output import plural
from ferrox.cli.terminal import ASK, BID, DIM, HEAD, speaks_unicode, styled, table
from ferrox.depth import Level

BAR_WIDTH: Final = 28
LEVELS: Final = 8
"""Levels of each side that a ladder shows where no number was asked for."""
TOPS: Final = 16
"""Books that a table of tops shows where not all were asked for."""
EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def tops(books: Sequence[BookLevels]) -> list[Text]:
    """Return the tops of books as a table, one a line."""
    rows: list[list[str | Text]] = []
    for book in books:
        top = book.top()
        rows.append(
            [
                str(book.instrument),
                book.state_word,
                f"{top.bid_quantity:,}" if top.bid is not None else "",
                Text(number(top.bid), BID),
                Text(number(top.ask), ASK),
                f"{top.ask_quantity:,}" if top.ask is not None else "",
                number(top.spread),
                f"{book.order_count:,}",
            ]
        )
    heads = ("instrument", "state", "quantity", "bid", "ask", "quantity", "spread", "orders")
    return table(heads, rows, left=(1,))


def number(value: int | None) -> str:
    """Return a price, or a dash for none."""
    return "-" if value is None else str(value)


def ladder(book: BookLevels, levels: int | None = LEVELS, width: int = BAR_WIDTH) -> list[Text]:
    """Return a book as lines: asks above, bids below, the best in the middle, each with a bar of its quantity."""
    depth = book.depth(levels)
    head = styled(
        (f"instrument {book.instrument}", HEAD),
        (f"  {book.state_word}, tick {book.tick}, lot {book.lot}, {plural(book.order_count, 'order')}", DIM),
    )
    shown = [*depth.ask_levels, *depth.bid_levels]
    if not shown:
        return [head, Text("  no order rests here", DIM)]
    most = max(level.quantity for level in shown)
    prices = max(len(str(level.price)) for level in shown)
    quantities = max(len(f"{level.quantity:,}") for level in shown)
    counts = max(len(f"({level.orders:,})") for level in shown)

    def line(level: Level, style: str, word: str) -> Text:
        return styled(
            (f"  {word}  ", DIM),
            (f"{level.price:>{prices}}", style),
            f"  {level.quantity:>{quantities},} ",
            (f"{f'({level.orders:,})':>{counts}}  ", DIM),
            (bar(level.quantity, most, width), style),
        )

    lines = [head]
    lines += [line(level, ASK, "ask") for level in reversed(depth.ask_levels)]
    spread = book.top().spread
    if spread is not None:
        lines.append(Text(f"       {'-' * prices}  spread {spread}", DIM))
    lines += [line(level, BID, "bid") for level in depth.bid_levels]
    hidden = len(book.asks) + len(book.bids) - len(shown)
    if hidden:
        lines.append(Text(f"       and {plural(hidden, 'level')} further away", DIM))
    return lines


def bar(quantity: int, most: int, width: int) -> str:
    """Return a bar in proportion, never empty for what is there: in eighths of a character, or in # signs."""
    if not speaks_unicode():
        return "#" * max(1, round(width * quantity / most))
    eighths = max(1, 8 * width * quantity // most)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def busiest(books: Sequence[BookLevels]) -> BookLevels | None:
    """Return the book with the most orders, the first of several."""
    return max(books, key=lambda book: book.order_count, default=None)


def show_books(books: Sequence[BookLevels], *, everything: bool) -> list[Text]:
    """Return the tops of books and the ladder of the busiest, or all ladders with all their levels."""
    if not books:
        return [Text("no instrument is defined", DIM)]
    if everything:
        lines = tops(books)
        for book in books:
            lines += [Text(), *ladder(book, None)]
        return lines
    lines = tops(books[:TOPS])
    if len(books) > TOPS:
        lines.append(Text(f"and {plural(len(books) - TOPS, 'instrument')} more; --book shows all", DIM))
    most = busiest(books)
    assert most is not None, "there is a book"
    return [*lines, Text(), *ladder(most)]
