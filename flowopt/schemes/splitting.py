"""Splitting schemes: one map per letter of a word, composed from left to right."""

from collections.abc import Mapping

from torch import Tensor

from flowopt.core.interfaces import Evaluate, FlowLike, Noise, Proposal
from flowopt.core.state import State
from flowopt.core.word import MOST_LETTERS, groups_of, is_word, moves_of
from flowopt.errors import CompatibilityError
from flowopt.schemes.drift import check_noise


class Splitting:
    """A word over a flow's letters, such as "BAOAB".

    A letter that occurs n times covers 1/n of the step each time. Letters in parentheses move
    jointly, solved as one linear system: "(AO)B(AO)" is UBU with U = A + O.

    Args:
        word: Capital letters, each naming a term of the flow.
        maps: Letter → "euler" where the drift is to be held instead of solved; letters that move
            jointly are named together, as "AO".

    Raises:
        CompatibilityError: The word or a choice of map is malformed.

    Reference:
        McLachlan & Quispel 2002, Acta Numerica 11, 341; Sanz-Serna & Zygalakis 2021, J. Mach.
        Learn. Res. 22(242), for UBU.
    """

    error_order = 0
    interpolant_order = 0
    regular_start = False

    def __init__(self, word: str, maps: Mapping[str, str] | None = None):
        """See the class."""
        if not is_word(word):
            raise CompatibilityError(
                f"a splitting word is made of up to {MOST_LETTERS} capital letters, as in 'BAOAB', "
                f"with those that move jointly in parentheses, as in '(AO)B(AO)', got {word!r}"
            )
        self.word = word
        groups = groups_of(word)
        if not isinstance(maps, Mapping | None):
            raise CompatibilityError(
                f"maps={maps!r}: give letters and their maps, as in maps={{'A': 'euler'}}"
            )
        self.maps = dict(maps or {})
        for letter, kind in self.maps.items():
            if letter not in groups or kind not in ("exact", "frozen", "euler"):
                raise CompatibilityError(
                    f"maps={self.maps}: give letters of {word!r} one of 'exact', 'frozen', 'euler'"
                )
        self.moves = moves_of(word, self.maps)

    def __repr__(self) -> str:
        """As it is written."""
        return f"Splitting({self.word!r}" + (f", maps={self.maps})" if self.maps else ")")

    def check(self, flow: FlowLike) -> None:
        """Raises `CompatibilityError` unless the word covers every term of the flow."""
        missing = [letter for letter in flow.letters if letter not in self.word]
        unknown = sorted(set(self.word) - {*flow.letters, "(", ")"})
        if missing or unknown:
            raise CompatibilityError(
                f"word {self.word!r} and flow {flow.name!r} with letters {list(flow.letters)} do "
                "not fit: "
                + (f"the flow has no {unknown}; " if unknown else "")
                + (f"the word leaves out {missing}; " if missing else "")
                + "a word covers every term of its flow"
            )
        check_noise(self, flow)
        for move in self.moves:
            flow.kind(move.letter, move.kind)

    def order(self, flow: FlowLike) -> float:
        """Order for a generic loss: 2 for a palindrome of exact maps, else 1; weak where noisy."""
        kinds = {flow.kind(move.letter, move.kind) for move in self.moves}
        if not kinds <= {"exact", "symmetric"}:
            return 1.0
        letters = [move.letter for move in self.moves]
        if len(set(letters)) == 1 and kinds == {"exact"}:
            return float("inf")
        return 2.0 if letters == letters[::-1] else 1.0

    def gradient_evaluations(self, flow: FlowLike) -> int:
        """Gradients per step, when the one at the end of the last step is used again."""
        return self._gradients(flow, known_at_start=self.ends_with_gradient(flow))

    def closure_free(self, flow: FlowLike) -> bool:
        """Whether the gradient at the start of the step is all that it needs."""
        return self._gradients(flow, known_at_start=True) == 0 and flow.damping is None

    def begins_with_gradient(self, flow: FlowLike) -> bool:
        """Whether it takes the gradient where the step starts, before it moves θ."""
        known, unknown = (self._gradients(flow, known_at_start=known) for known in (True, False))
        return known < unknown

    def ends_with_gradient(self, flow: FlowLike) -> bool:
        """Whether the last gradient is taken after the last move of θ."""
        for move in reversed(self.moves):
            if flow.moves_position(move.letter):
                return False
            if flow.uses_gradient(move.letter):
                return True
        return False

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise
    ) -> Proposal:
        """The letters' maps, one after the other."""
        for move in self.moves:
            state = flow.apply(move, state, step_size, evaluate, noise)
        return Proposal(state)

    def _gradients(self, flow: FlowLike, *, known_at_start: bool) -> int:
        known, count = known_at_start, 0
        for move in self.moves:
            if flow.uses_gradient(move.letter) and not known:
                known, count = True, count + 1
            if flow.moves_position(move.letter):
                known = False
        return count
