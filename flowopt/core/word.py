"""Words over the letters of a flow, as lists of moves."""

import re
from collections.abc import Mapping

from flowopt.core.interfaces import LetterMove
from flowopt.errors import CompatibilityError

MOST_LETTERS = 512
GROUP = re.compile(r"[A-Z]|\([A-Z]{2,}\)")
WORD = re.compile(rf"(?:{GROUP.pattern})+")


def is_word(word: object) -> bool:
    """Whether this is a text of capital letters, some of them in parentheses, as "(AO)B(AO)"."""
    return isinstance(word, str) and bool(WORD.fullmatch(word)) and len(word) <= MOST_LETTERS


def groups_of(word: str) -> tuple[str, ...]:
    """The letters of a word; those that move jointly are one group, in alphabetical order."""
    return tuple("".join(sorted(group.strip("()"))) for group in GROUP.findall(word))


def word_of(groups: tuple[str, ...]) -> str:
    """The word that is made of groups."""
    return "".join(group if len(group) == 1 else f"({group})" for group in groups)


def moves_of(word: str, maps: Mapping[str, str]) -> tuple[LetterMove, ...]:
    """What a word does, move by move.

    Args:
        word: Checked by `is_word`.
        maps: Group of letters → kind of its map, where that is chosen.

    Raises:
        CompatibilityError: Letters that move jointly do not cover the same shares of the step.
    """
    groups = groups_of(word)
    return tuple(
        LetterMove(group, maps.get(group), *_shares(word, groups, place), groups)
        for place, group in enumerate(groups)
    )


def _shares(word: str, groups: tuple[str, ...], place: int) -> tuple[int, int, int]:
    """Into how many parts letters divide the step, their place, and which of the parts it is."""
    letters = groups[place]
    shares = {(word.count(x), place, "".join(groups[:place]).count(x)) for x in letters}
    if len(set(letters)) < len(letters) or len(shares) > 1:
        raise CompatibilityError(
            f"word {word!r}: letters that move jointly, {letters}, are distinct and move over the "
            "same shares of the step"
        )
    return shares.pop()
