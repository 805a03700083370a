"""Joins all answers in one graph, the union of their chains, because only together they prove an order.

Each answer is a chain: every document stands strictly above the next one with a lower score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from batchrank.data import Positions
from batchrank.merge.answers import Answer, FirstPass


@dataclass(frozen=True, eq=False)
class Graph:
    """A union of chains.

    Attributes:
        node: n nodes, one per document; -1 for a document without a score.
        real: nodes below this number hold documents, the others only join a tied group to the next.
        total: nodes.
        above: the upper node of each edge.
        below: the lower one.
        ties: whether tied documents share a node.
    """

    node: Positions
    real: int
    total: int
    above: Positions
    below: Positions
    ties: bool

    @cached_property
    def successors(self) -> tuple[list[int], list[int]]:
        """Bounds and targets: the successors of node i are ``targets[bounds[i]:bounds[i + 1]]``."""
        order = np.argsort(self.above, kind="stable")
        bounds = np.r_[0, np.cumsum(np.bincount(self.above, minlength=self.total))]
        return bounds.tolist(), self.below[order].tolist()

    @property
    def degree(self) -> list[int]:
        """Predecessors of each node; a list of one's own."""
        degree: list[int] = np.bincount(self.below, minlength=self.total).tolist()
        return degree

    @cached_property
    def members(self) -> tuple[list[int], list[int]]:
        """Bounds and documents: those of node i are ``documents[bounds[i]:bounds[i + 1]]``."""
        documents = np.argsort(self.node, kind="stable")
        bounds = np.searchsorted(self.node[documents], np.arange(self.total + 1))
        return bounds.tolist(), documents.tolist()


def with_ties_equal(first: FirstPass, chains: Sequence[Answer]) -> Graph | None:
    """Tied documents share a node; None if an answer separates documents that share one."""
    label = _classes(len(first), chains)
    node = np.full(len(first), -1, dtype=np.intp)
    kinds, node[first.scored] = np.unique(label[first.scored], return_inverse=True)
    above, below = [], []
    for chain in chains:
        steps = node[chain.docs[chain.starts()]]
        if (steps[1:] == steps[:-1]).any():
            return None
        above.append(steps[:-1])
        below.append(steps[1:])
    return _graph(node, len(kinds), len(kinds), above, below, ties=True)


def with_ties_open(first: FirstPass, chains: Sequence[Answer]) -> Graph | None:
    """Each document is a node; None if there are no ties, so that nothing would change."""
    if not any(_tied(chain).any() for chain in chains):
        return None
    node = np.full(len(first), -1, dtype=np.intp)
    real = len(first.scored)
    node[first.scored] = np.arange(real)
    total = real
    above, below = [], []
    for chain in chains:
        # A node between each two groups keeps the edges linear in the number of documents.
        nodes, starts = node[chain.docs], chain.starts()
        group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(chain)]))
        upper, lower = group < len(starts) - 1, group > 0
        above += [nodes[upper], total + group[lower] - 1]
        below += [total + group[upper], nodes[lower]]
        total += len(starts) - 1
    return _graph(node, real, total, above, below, ties=False)


def _graph(
    node: Positions, real: int, total: int, above: list[Positions], below: list[Positions], *, ties: bool
) -> Graph:
    nothing = np.empty(0, dtype=np.intp)
    return Graph(
        node, real, total, np.concatenate([nothing, *above]), np.concatenate([nothing, *below]), ties
    )


def _tied(chain: Answer) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Which documents are tied with the next one."""
    tied: np.ndarray[tuple[int], np.dtype[np.bool_]] = chain.values[1:] == chain.values[:-1]
    return tied


def _classes(n: int, chains: Sequence[Answer]) -> Positions:
    """For each document the first one that it is tied with, directly or through others."""
    ties = [(chain, rows) for chain in chains if len(rows := np.flatnonzero(_tied(chain)))]
    if not ties:
        return np.arange(n)
    # Union-find by path halving, over the tied ones alone: most documents are tied with none.
    parent = list(range(n))
    for chain, rows in ties:
        for one, two in zip(chain.docs[rows].tolist(), chain.docs[rows + 1].tolist(), strict=True):
            while parent[one] != one:
                parent[one] = one = parent[parent[one]]
            while parent[two] != two:
                parent[two] = two = parent[parent[two]]
            parent[two] = one
    first = np.array(parent, dtype=np.intp)
    while ((found := first[first]) != first).any():
        first = found
    return first
