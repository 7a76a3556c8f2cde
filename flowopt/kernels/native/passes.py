"""Steps that sum over elements, as passes over all of them: a sum is known after its own.

A pass computes anew what its sums need of a step. The last one alone writes tensors, so that all
begin with the same.
"""

from dataclasses import replace

from flowopt.kernels.native.updates import Elementwise
from flowopt.kernels.program import F64


def passes_of(work: Elementwise, slot: int) -> list[Elementwise]:
    """The passes of a step.

    Args:
        work: The step; sums over elements are its values "total".
        slot: The first input that is free.

    Returns:
        Passes that sum, then the one that steps. All sums are further numbers of all of them, in
        the order of the passes.
    """
    program, depth = work.program, {}
    for index in work.used:
        node = program.nodes[index]
        depth[index] = max((depth[a] for a in node.args), default=0) + (node.op == "total")
    totals = [index for index in work.used if program.nodes[index].op == "total"]
    totals.sort(key=depth.__getitem__)
    known = {index: program.input(F64, slot + place, 0) for place, index in enumerate(totals)}
    work = replace(work, numbers=(*work.numbers, *known.values()))
    found = []
    for level in sorted({depth[index] for index in totals}):
        inner = [program.nodes[index].args[0] for index in totals if depth[index] == level]
        before = {index: number for index, number in known.items() if depth[index] < level}
        sums = program.rewrite(inner, before)
        found.append(replace(work, results=[None] * len(work.columns), kept=(), sums=sums))
    stepped = [index for index in work.results if index is not None]
    after = dict(
        zip([*stepped, *work.kept], program.rewrite([*stepped, *work.kept], known), strict=True)
    )
    results = [None if index is None else after[index] for index in work.results]
    return [*found, replace(work, results=results, kept=[after[index] for index in work.kept])]
