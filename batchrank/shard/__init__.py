"""Stage 2, pure: a query's documents -> chunks within the model's limits.

Tokens of a request are predicted by the documented formula, query tokens x documents + document tokens, where an
item counts no more than ``item_tokens``, at which the API cuts it; instruct and overhead are billed per document
too. So each document adds a size of its own, and a request's tokens are the sum of its documents' sizes.

How documents are spread over c chunks, c being as small as the limits allow:

1. The limit on documents alone decides: each block of c neighbouring first-stage ranks gives one document to each
   chunk, by a permutation seeded from the query id. All chunks fit, most often by the bound of bytes alone.
2. Tokens or body bytes bind: in each block the longest document goes to the lightest chunk (and so on), the blocks
   of the most unequal documents first. c is raised while this leaves a chunk too heavy.
3. Sizes so unequal that first-fit decreasing needs fewer chunks than 2: then its chunks, not stratified.

The permutations come from SHAKE-256 of the query id, whose output is fixed for ever; numpy promises no such thing
of its permutations.
"""

from batchrank.shard.cut import Cut, Cutter
from batchrank.shard.measure import Media
from batchrank.shard.rules import Limits
from batchrank.shard.shards import QueryShards, Sharder

__all__ = ["Cut", "Cutter", "Limits", "Media", "QueryShards", "Sharder"]
