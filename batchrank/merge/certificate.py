"""Finds the part of a ranking that the answers prove: Kahn's algorithm over the union of their chains.

While exactly one document has nothing left above it, it is provably next: every other one has it as an ancestor.

Cases, tried in this order:
1. Ties taken as equal: tied documents are one node. As long as the union is free of cycles, nothing
   contradicts that, and documents that are next together are "exact up to ties".
2. Otherwise some answer separates what another one ties (its scale is coarse). Then a tie says nothing.
3. If there is a cycle even so, the answers contradict each other, and nothing is proven.

The standard library's ``graphlib`` hands out all sources at once; here the best ranked goes first, which also orders
what is not proven.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from batchrank.data import Floats, Positions
from batchrank.merge.answers import Answer, FirstPass
from batchrank.merge.graph import Graph, with_ties_equal, with_ties_open


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """What is proven.

    Attributes:
        graph: the chains; None when the answers contradict each other.
        order: scored documents, best first, in an order that no answer contradicts; empty without a graph.
        depth: how many of them, from the top, stand there provably.
    """

    graph: Graph | None
    order: Positions
    depth: int

    @property
    def consistent(self) -> bool:
        """Whether no answer contradicts another."""
        return self.graph is not None

    def sources(self) -> Positions:
        """The documents that may come next: nothing uncertified is known to be better."""
        assert self.graph is not None
        graph, degree = self.graph, self.graph.degree
        bounds, targets = graph.successors
        stack = list(set(graph.node[self.order[: self.depth]].tolist()))
        proven = set(stack)
        while stack:
            node = stack.pop()
            for target in targets[bounds[node] : bounds[node + 1]]:
                degree[target] -= 1
                if not degree[target] and target >= graph.real:
                    stack.append(target)
        free = [node for node in range(graph.real) if not degree[node] and node not in proven]
        return np.flatnonzero(np.isin(graph.node, free))


def certify(first: FirstPass, answers: Sequence[Answer], rank: Positions | None = None) -> Certificate:
    """Prove what can be proven, and order the rest by ``rank`` as far as the answers leave it open.

    Args:
        first: the first pass, whose answers count as well.
        answers: all other answers.
        rank: n estimated ranks, lower is better; by quantile if None.
    """
    chains = [*first.answers, *answers]
    rank = first.tiebreak if rank is None else rank
    for build in (with_ties_equal, with_ties_open):
        graph = build(first, chains)
        if graph is None:
            continue
        ranks = _node_ranks(graph, rank)
        released, proven = _in_rank_order(graph, ranks) or _by_release(graph, ranks.tolist())
        if len(released) == graph.total:
            return _certificate(graph, released, proven, rank)
    return Certificate(None, np.empty(0, dtype=np.intp), 0)


def _certificate(graph: Graph, released: Positions, proven: int, rank: Positions) -> Certificate:
    turn = np.empty(graph.total, dtype=np.intp)
    turn[released] = np.arange(graph.total)
    docs = np.flatnonzero(graph.node >= 0)
    turns = turn[graph.node[docs]]
    order = docs[np.lexsort((rank[docs], turns))]
    return Certificate(graph, order, int((turns < proven).sum()))


def _node_ranks(graph: Graph, rank: Positions) -> Positions:
    """The best rank of each node's documents."""
    ranks = np.full(graph.real, np.iinfo(np.intp).max)
    docs = np.flatnonzero(graph.node >= 0)
    np.minimum.at(ranks, graph.node[docs], rank[docs])
    return ranks


def _in_rank_order(graph: Graph, ranks: Positions) -> tuple[Positions, int] | None:
    """What ``_by_release`` finds, where the ranks contradict no answer, as good estimates don't; else None.

    Then the best ranked node is always free to be next, so the order is that of the ranks. A node is free from the turn
    after its last predecessor's up to its own; while there is one free node only, it is proven.
    """
    if graph.total > graph.real or not (ranks[graph.above] < ranks[graph.below]).all():
        return None
    order = np.argsort(ranks, kind="stable")
    turn = np.empty(graph.real, dtype=np.intp)
    turn[order] = np.arange(graph.real)
    since = np.zeros(graph.real, dtype=np.intp)
    np.maximum.at(since, graph.below, turn[graph.above] + 1)
    # One node leaves at each turn.
    free = np.cumsum(np.bincount(since, minlength=graph.real)) - np.arange(graph.real)
    rivals = np.flatnonzero(free > 1)
    return order, int(rivals[0]) if len(rivals) else graph.real


def _by_release(graph: Graph, ranks: list[int]) -> tuple[Positions, int]:
    """Nodes in topological order, best rank first; and how many of them had no rival when their turn came."""
    real, degree = graph.real, graph.degree
    bounds, targets = graph.successors
    released: list[int] = []
    proven, unrivalled = 0, True
    keys = [rank * real + node for node, rank in enumerate(ranks)]  # one number compares faster than a pair
    heap = [keys[node] for node in range(real) if not degree[node]]
    heapify(heap)
    while heap:
        unrivalled = unrivalled and len(heap) == 1
        stack = [heappop(heap) % real]
        while stack:
            node = stack.pop()
            released.append(node)
            for target in targets[bounds[node] : bounds[node + 1]]:
                degree[target] -= 1
                if degree[target]:
                    continue
                if target < real:
                    heappush(heap, keys[target])
                else:
                    stack.append(target)
        if unrivalled:
            proven = len(released)
    return np.array(released, dtype=np.intp), proven


def contenders(certificate: Certificate, first: FirstPass, k: int) -> Positions:
    """The documents below the certified ones that may still be in the top k, as fewer than k are known to be better.

    In each answer of the first pass, those known to be better than a document are all above some place, so that one
    vector of places counts them. Where k are better, the walk ends.
    """
    graph = certificate.graph
    assert graph is not None
    better = _reach(first, ties=graph.ties)
    ends, members = graph.members
    degree = graph.degree
    bounds, targets = graph.successors
    known: dict[int, Positions] = {}
    nothing = np.zeros(len(first.answers), dtype=np.intp)
    found: list[int] = []
    ready = [node for node in range(graph.real) if not degree[node]]
    while ready:
        node = ready.pop()
        row = known.pop(node, nothing)
        if row.sum() >= k:
            continue
        own = members[ends[node] : ends[node + 1]]
        found += own
        below = row.copy()
        for doc in own:
            answer = first.answer_of[doc]
            below[answer] = max(below[answer], better[doc])
        for target in targets[bounds[node] : bounds[node + 1]]:
            known[target] = np.maximum(known[target], below) if target in known else below
            degree[target] -= 1
            if not degree[target]:
                ready.append(target)
    proven = np.zeros(len(first), dtype=bool)
    proven[certificate.order[: certificate.depth]] = True
    docs = np.sort(np.array(found, dtype=np.intp))
    return docs[~proven[docs]]


def _reach(first: FirstPass, *, ties: bool) -> Positions:
    """For each document, how many of its own answer stand above whatever it stands above."""
    reach = np.zeros(len(first), dtype=np.intp)
    for answer in first.answers:
        starts = answer.starts()
        ends = np.r_[starts[1:], len(answer)]
        reach[answer.docs] = np.repeat(ends if ties else starts + 1, ends - starts)
    return reach


def rank_of(order: Positions, n: int) -> Positions:
    """Ranks of documents in an order; those that are not in it rank last."""
    ranks = np.full(n, len(order), dtype=np.intp)
    ranks[order] = np.arange(len(order))
    return ranks


def by_value(first: FirstPass, value: Floats) -> Positions:
    """Ranks by falling value."""
    return rank_of(first.by(value), len(first))
