"""Spreads documents over chunks: arrays of positions and weights in, arrays of positions out.

While it is being made, a set of chunks is a matrix of blocks x chunks: a row holds one document of each chunk, -1
standing for none, so a column is a chunk.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batchrank.data import Positions

Sizes = NDArray[np.int64]

_WORTH = 16
"""One more chunk for each so many is worth paying, if the chunks are stratified then."""
_SWAPS = 20_000_000
"""Documents looked at in search of swaps, so that a list of any length ends."""


def pack(documents: Positions, weights: Sizes, budget: int, limit: int, seed: str) -> Iterator[Positions]:
    """As few chunks as the weights allow, stratified if that costs little more; each document fits alone."""
    least = _lower_bound(weights[documents], budget, limit)
    for chunks in range(least, min(least + 2, len(documents) + 1)):
        columns = _balanced(stratified(documents, chunks, seed), weights, budget)
        if heaviest(weights, columns) <= budget:
            return split(columns)
    unequal = _first_fit_decreasing(documents, weights, budget, limit)
    more = 2
    while least + more <= len(unequal) + len(unequal) // _WORTH:
        columns = _balanced(stratified(documents, least + more, seed), weights, budget)
        if heaviest(weights, columns) <= budget:
            return split(columns)
        more += max(1, more // 4)
    return iter(unequal)


def stratified(documents: Positions, chunks: int, seed: str) -> Positions:
    """Blocks x chunks: each row holds neighbouring documents in a random order; -1 fills up the last row."""
    blocks = -(-len(documents) // chunks)
    rows = np.full(blocks * chunks, -1, dtype=np.intp)
    rows[: len(documents)] = documents
    if chunks == 1:
        return rows.reshape(blocks, 1)
    stream = hashlib.shake_256(seed.encode("utf-8", "surrogatepass")).digest(8 * rows.size)
    order = np.frombuffer(stream, dtype="<u8").reshape(blocks, chunks).argsort(axis=1, kind="stable")
    return np.take_along_axis(rows.reshape(blocks, chunks), order, axis=1)


def split(columns: Positions) -> Iterator[Positions]:
    """The columns as chunks, without what fills them up."""
    for column in columns.T:
        yield np.ascontiguousarray(column[column >= 0])


def heaviest(sizes: Sizes, columns: Positions) -> int:
    """The largest sum of sizes in any column; -1 weighs nothing."""
    if columns.shape[1] == 1 and len(columns) == len(sizes):  # all of them, in one request
        return int(sizes.sum())
    padded = np.append(sizes, 0)
    return int(padded[columns].sum(axis=0).max(initial=0))


def _lower_bound(weights: Sizes, budget: int, limit: int) -> int:
    """No fewer chunks can do: of documents heavier than budget / (k + 1), a chunk holds k at most."""
    together = np.arange(1, limit + 1)
    heavy = len(weights) - np.searchsorted(np.sort(weights), budget // (together + 1), side="right")
    return max(
        -(-len(weights) // limit), -(-int(weights.sum()) // budget), int((-(-heavy // together)).max())
    )


def _balanced(rows: Positions, weights: Sizes, budget: int) -> Positions:
    """Permute each row so that the columns' weights come out alike, and within the budget if that can be had."""
    padded = np.append(weights, 0)[rows]
    order = np.argsort(-padded, axis=1, kind="stable")
    rows, padded = np.take_along_axis(rows, order, axis=1), np.take_along_axis(padded, order, axis=1)
    columns, sizes = np.empty_like(rows), np.empty_like(padded)
    loads = np.zeros(rows.shape[1], dtype=np.int64)
    for block in np.argsort(padded[:, -1] - padded[:, 0], kind="stable").tolist():
        lightest = loads.argsort(kind="stable")
        columns[block, lightest], sizes[block, lightest] = rows[block], padded[block]
        loads[lightest] += padded[block]
    _swap(columns, sizes, loads, budget)
    return columns


def _swap(columns: Positions, sizes: Sizes, loads: Sizes, budget: int) -> None:
    """Swap, within a row, a document of the heaviest column for a lighter one, while that column is too heavy."""
    for _ in range(min(8 * len(loads), _SWAPS // sizes.size)):
        heavy = int(loads.argmax())
        if loads[heavy] <= budget:
            return
        moved = sizes[:, [heavy]] - sizes
        after = np.maximum(loads[heavy] - moved, loads + moved)
        row, light = divmod(int(after.argmin()), len(loads))
        if after[row, light] >= loads[heavy]:
            return
        loads[heavy] -= moved[row, light]
        loads[light] += moved[row, light]
        for table in (columns, sizes):
            table[row, heavy], table[row, light] = table[row, light], table[row, heavy]


def _first_fit_decreasing(documents: Positions, weights: Sizes, budget: int, limit: int) -> list[Positions]:
    """The heaviest document first, each into the first chunk that still takes it."""
    room = np.full(len(documents), budget, dtype=np.int64)
    chunks: list[list[int]] = []
    for document in documents[np.argsort(-weights[documents], kind="stable")].tolist():
        chunk = int(np.argmax(room[: len(chunks) + 1] >= weights[document]))
        if chunk == len(chunks):
            chunks.append([])
        chunks[chunk].append(document)
        room[chunk] = room[chunk] - weights[document] if len(chunks[chunk]) < limit else -1
    return [np.array(sorted(chunk), dtype=np.intp) for chunk in chunks]
