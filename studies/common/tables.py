"""Tables as text: plain for the terminal, Markdown for reports; both aligned."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without lines, its columns two spaces apart.

    Args:
        header: One title per column.
        rows: As many cells each.

    Returns:
        Lines without trailing spaces, the header first.
    """
    widths = _widths([header, *rows])
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join(lines)


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> str:
    """A Markdown table whose source is aligned too.

    Args:
        header: One title per column.
        rows: As many cells each.
        right: Titles of the columns that end flush, as numbers do.

    Returns:
        Lines, the header first.
    """
    flush = [title in right for title in header]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [header, *rows]]
    # A ruler of Markdown has at least three signs.
    widths = [max(width, 3) for width in _widths(cells)]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, flush, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    ruler = [
        "-" * (width - 1) + (":" if at_right else "-")
        for width, at_right in zip(widths, flush, strict=True)
    ]
    return "\n".join([line(cells[0]), line(ruler), *(line(row) for row in cells[1:])])


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
