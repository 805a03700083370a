"""The rerank APIs on loopback: documented limits, quotas and errors, seeded faults, real relevance."""
