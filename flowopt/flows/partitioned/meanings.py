"""What the letters of a word mean to a block with an equation of its own."""

from collections.abc import Mapping
from functools import lru_cache

from flowopt.core.interfaces import FlowLike, LetterMove
from flowopt.core.partition import Partition
from flowopt.core.word import groups_of, is_word, moves_of, word_of
from flowopt.errors import CompatibilityError, PartitionError
from flowopt.flows.equations.equation_flow import EquationFlow


def check_blocks(partition: object, flows: object, *settings: Mapping[str, object]) -> None:
    """Raises `PartitionError` unless every block has a flow, and settings are of blocks."""
    if not isinstance(partition, Partition):
        raise PartitionError(
            f"{partition!r} is no partition: give fo.Partition(problem, {{'first': [0], …}})"
        )
    names = partition.names
    if not isinstance(flows, Mapping) or {*flows} != {*names}:
        came = list(flows) if isinstance(flows, Mapping) else flows
        raise PartitionError(f"the blocks are {list(names)}, flows are given for {came}: one each")
    for name, flow in flows.items():
        if not isinstance(flow, EquationFlow):
            raise PartitionError(
                f"block {name!r}: a block has a flow made of equations, got {type(flow).__name__}: "
                "give flowopt.flows.langevin(...) or Flow.from_text(...)"
            )
    for given in settings:
        if unknown := [name for name in given if name not in names]:
            raise PartitionError(f"no blocks {unknown}: they are {list(names)}")


def checked_meanings(block: str, flow: FlowLike, given: Mapping[str, str]) -> dict[str, str]:
    """Letter → word over the letters of a block's flow; where nothing is given, the same letter.

    Raises:
        PartitionError: A letter of the flow has no meaning, or two, or a word has letters that the
            flow does not have.
        CompatibilityError: A meaning uses the gradient after θ has moved.
    """
    if not isinstance(given, Mapping):
        raise PartitionError(
            f"block {block!r}: letters={given!r}: give letters and what they mean, as in "
            "{'O': 'CDEDC'}"
        )
    for letter, meaning in given.items():
        single = isinstance(letter, str) and len(letter) == 1 and is_word(letter)
        if not single or not (meaning == "" or is_word(meaning)):
            raise PartitionError(
                f"block {block!r}: letter {letter!r} can not mean {meaning!r}: a capital letter "
                "means a word over the letters of the block's flow, as in {'O': 'CDEDC'}"
            )
    named = [letter for meaning in given.values() for letter in sorted({*meaning} - {*"()"})]
    own = {letter: letter for letter in flow.letters if letter not in named}
    unknown = sorted({*named} - {*flow.letters})
    twice = sorted({letter for letter in named if named.count(letter) > 1} | ({*own} & {*given}))
    if unknown or twice:
        raise PartitionError(
            f"block {block!r}, flow {flow.name!r} with letters {list(flow.letters)}, "
            f"letters={dict(given)}: "
            + (f"the flow has no {unknown}; " if unknown else "")
            + (f"{twice} have two meanings; " if twice else "")
            + "each letter of the flow belongs to one letter of the word, by default to its own"
        )
    meanings = {**own, **given}
    for letter, meaning in meanings.items():
        _check_gradients(block, flow, letter, meaning)
    return meanings


def _check_gradients(block: str, flow: FlowLike, letter: str, meaning: str) -> None:
    moved = False
    for group in groups_of(meaning):
        flow.kind(group, None)
        if moved and flow.uses_gradient(group):
            raise CompatibilityError(
                f"block {block!r}: {letter!r} means {meaning!r}, which uses the gradient after it "
                "has moved theta, and all blocks see one gradient, that at the start of a letter: "
                "spread it over several letters of the word"
            )
        moved = moved or flow.moves_position(group)


def own_groups(meanings: Mapping[str, str], letters: str) -> tuple[str, ...]:
    """What a letter of the word, or several that move jointly, mean to a block.

    Raises:
        CompatibilityError: Letters that move jointly mean several letters each.
    """
    if len(letters) == 1:
        return groups_of(meanings.get(letters, ""))
    means = [meanings.get(letter, "") for letter in letters]
    if any(len(meaning) > 1 for meaning in means):
        raise CompatibilityError(
            f"letters {letters!r} move jointly and mean {means} to a block: those that move "
            "jointly mean one letter each"
        )
    joint = "".join(sorted("".join(means)))
    return (joint,) if joint else ()


def own_word(meanings: Mapping[str, str], groups: tuple[str, ...]) -> str:
    """The word that a block steps while all of them step another one."""
    return word_of(tuple(own for group in groups for own in own_groups(meanings, group)))


def own_moves(meanings: Mapping[str, str], move: LetterMove) -> tuple[LetterMove, ...]:
    """What a block does while all of them make a move: part of what it would do alone."""
    # A letter by itself, outside of any word, covers one of its parts.
    groups = move.word or (move.letter,) * move.parts
    place = move.place if move.word else move.part
    before, own = _sliced(tuple(meanings.items()), groups, place)
    return tuple(one._replace(kind=move.kind) for one in before[own])


@lru_cache(maxsize=1024)
def _sliced(
    meanings: tuple[tuple[str, str], ...], groups: tuple[str, ...], place: int
) -> tuple[tuple[LetterMove, ...], slice]:
    """The moves of a block's own word, and which of them belong to a place of the word."""
    table = dict(meanings)
    counts = [len(own_groups(table, group)) for group in groups]
    first = sum(counts[:place])
    return moves_of(own_word(table, groups), {}), slice(first, first + counts[place])
