"""What the answers prove: Kahn's algorithm over the union of chains.

Each answer is a chain: every document stands strictly above the next one with a lower score. While exactly
one document has nothing left above it, it is provably next: every other one has it as an ancestor.

Cases, tried in this order:
1. Ties taken as equal: tied documents are one node. As long as the union is free of cycles, nothing
   contradicts that, and documents that are next together are "exact up to ties".
2. That has a cycle: some answer separates what another one ties (a coarse scale). Then a tie says nothing.
3. That has a cycle too: the answers contradict each other, and nothing is proven.

The standard library's ``graphlib`` hands out all sources at once; here the best ranked goes first, which also orders
what is not proven.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from batchrank.merge.answers import Answer, FirstPass
from batchrank.records import Floats, Positions


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A union of chains.

    Attributes:
        node: n nodes, one per document; -1 for a document without a score.
        real: nodes below this number hold documents, the others only join a tied group to the next.
        bounds: the successors of node i are ``targets[bounds[i]:bounds[i + 1]]``.
        targets: nodes.
        degree: predecessors of each node.
        ties: whether tied documents share a node.
    """

    node: Positions
    real: int
    bounds: list[int]
    targets: list[int]
    degree: list[int]
    ties: bool


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
        graph, degree = self.graph, self.graph.degree.copy()
        stack = list(set(graph.node[self.order[: self.depth]].tolist()))
        proven = set(stack)
        while stack:
            node = stack.pop()
            for target in graph.targets[graph.bounds[node] : graph.bounds[node + 1]]:
                degree[target] -= 1
                if not degree[target] and target >= graph.real:
                    stack.append(target)
        free = [node for node in range(graph.real) if not degree[node] and node not in proven]
        return np.flatnonzero(np.isin(graph.node, free))


def certify(first: FirstPass, answers: Sequence[Answer], rank: Positions | None = None) -> Certificate:
    """Prove what can be proven, and order the rest by ``rank`` as far as the answers leave it open.

    Args:
        first: the first pass, whose pieces count as answers as well.
        answers: all other answers.
        rank: n estimated ranks, lower is better; by quantile if None.
    """
    chains = [*first.pieces, *answers]
    rank = first.tiebreak if rank is None else rank
    for build in (_with_ties_equal, _with_ties_open):
        graph = build(first, chains)
        if graph is None:
            continue
        released, proven = _release(graph, _node_ranks(graph, rank))
        if len(released) == len(graph.degree):
            return _certificate(graph, released, proven, rank)
    return Certificate(None, np.empty(0, dtype=np.intp), 0)


def _certificate(graph: Graph, released: list[int], proven: int, rank: Positions) -> Certificate:
    turn = np.empty(len(graph.degree), dtype=np.intp)
    turn[released] = np.arange(len(released))
    docs = np.flatnonzero(graph.node >= 0)
    turns = turn[graph.node[docs]]
    order = docs[np.lexsort((rank[docs], turns))]
    return Certificate(graph, order, int((turns < proven).sum()))


def _node_ranks(graph: Graph, rank: Positions) -> list[int]:
    """The best rank of each node's documents."""
    ranks = np.full(graph.real, np.iinfo(np.intp).max)
    docs = np.flatnonzero(graph.node >= 0)
    np.minimum.at(ranks, graph.node[docs], rank[docs])
    return ranks.tolist()


def _release(graph: Graph, ranks: list[int]) -> tuple[list[int], int]:
    """Nodes in topological order, best rank first; and how many of them had no rival when their turn came."""
    degree, bounds, targets, real = graph.degree.copy(), graph.bounds, graph.targets, graph.real
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
    return released, proven


def _with_ties_equal(first: FirstPass, chains: Sequence[Answer]) -> Graph | None:
    """Tied documents share a node; None if an answer separates documents that share one."""
    label = _classes(len(first), chains)
    node = np.full(len(first), -1, dtype=np.intp)
    kinds, node[first.scored] = np.unique(label[first.scored], return_inverse=True)
    sources, targets = [], []
    for chain in chains:
        steps = node[chain.docs[chain.starts()]]
        if (steps[1:] == steps[:-1]).any():
            return None
        sources.append(steps[:-1])
        targets.append(steps[1:])
    return _graph(node, len(kinds), len(kinds), sources, targets, ties=True)


def _classes(n: int, chains: Sequence[Answer]) -> Positions:
    """For each document the first one that it is tied with, directly or through others."""
    parent = list(range(n))

    def root(doc: int) -> int:
        while parent[doc] != doc:
            parent[doc] = doc = parent[parent[doc]]
        return doc

    for chain in chains:
        tied = np.flatnonzero(chain.values[1:] == chain.values[:-1])
        for one, two in zip(chain.docs[tied].tolist(), chain.docs[tied + 1].tolist(), strict=True):
            parent[root(two)] = root(one)
    return np.array([root(doc) for doc in range(n)] if _any_ties(chains) else parent, dtype=np.intp)


def _any_ties(chains: Sequence[Answer]) -> bool:
    return any((chain.values[1:] == chain.values[:-1]).any() for chain in chains)


def _with_ties_open(first: FirstPass, chains: Sequence[Answer]) -> Graph | None:
    """Each document is a node; None if there are no ties, so that nothing would change."""
    if not _any_ties(chains):
        return None
    node = np.full(len(first), -1, dtype=np.intp)
    real = len(first.scored)
    node[first.scored] = np.arange(real)
    total = real
    sources, targets = [], []
    for chain in chains:
        # A node between each two groups keeps the edges linear in the number of documents.
        nodes, starts = node[chain.docs], chain.starts()
        group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(chain)]))
        below, above = group < len(starts) - 1, group > 0
        sources += [nodes[below], total + group[above] - 1]
        targets += [total + group[below], nodes[above]]
        total += len(starts) - 1
    return _graph(node, real, total, sources, targets, ties=False)


def _graph(
    node: Positions, real: int, total: int, sources: list[Positions], targets: list[Positions], *, ties: bool
) -> Graph:
    nothing = np.empty(0, dtype=np.intp)
    start, end = np.concatenate([nothing, *sources]), np.concatenate([nothing, *targets])
    order = np.argsort(start, kind="stable")
    bounds = np.r_[0, np.cumsum(np.bincount(start, minlength=total))]
    degree = np.bincount(end, minlength=total)
    return Graph(node, real, bounds.tolist(), end[order].tolist(), degree.tolist(), ties)


def contenders(certificate: Certificate, first: FirstPass, k: int) -> Positions:
    """The documents below the certified ones that may still belong to the top k: fewer than k known betters.

    The known betters of a document are, in each piece of the first pass, all above some place, so that one
    vector of places counts them. Documents with k betters are never walked past.
    """
    graph = certificate.graph
    assert graph is not None
    better = _reach(first, ties=graph.ties)
    members = _members(graph)
    degree = graph.degree.copy()
    known: dict[int, Positions] = {}
    nothing = np.zeros(len(first.pieces), dtype=np.intp)
    found: list[int] = []
    ready = [node for node in range(graph.real) if not degree[node]]
    while ready:
        node = ready.pop()
        row = known.pop(node, nothing)
        if row.sum() >= k:
            continue
        found += members[node]
        below = row.copy()
        for doc in members[node]:
            piece = first.piece[doc]
            below[piece] = max(below[piece], better[doc])
        for target in graph.targets[graph.bounds[node] : graph.bounds[node + 1]]:
            known[target] = np.maximum(known[target], below) if target in known else below
            degree[target] -= 1
            if not degree[target]:
                ready.append(target)
    proven = np.zeros(len(first), dtype=bool)
    proven[certificate.order[: certificate.depth]] = True
    docs = np.sort(np.array(found, dtype=np.intp))
    return docs[~proven[docs]]


def _reach(first: FirstPass, *, ties: bool) -> Positions:
    """For each document, how many of its own piece stand above whatever it stands above."""
    reach = np.zeros(len(first), dtype=np.intp)
    for piece in first.pieces:
        starts = piece.starts()
        ends = np.r_[starts[1:], len(piece)]
        reach[piece.docs] = np.repeat(ends if ties else starts + 1, ends - starts)
    return reach


def _members(graph: Graph) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in graph.degree]
    for doc, node in enumerate(graph.node.tolist()):
        if node >= 0:
            members[node].append(doc)
    return members


def rank_of(order: Positions, n: int) -> Positions:
    """Ranks of documents in an order; those that are not in it rank last."""
    ranks = np.full(n, len(order), dtype=np.intp)
    ranks[order] = np.arange(len(order))
    return ranks


def by_value(first: FirstPass, value: Floats) -> Positions:
    """Ranks by falling value."""
    return rank_of(first.by(value), len(first))
