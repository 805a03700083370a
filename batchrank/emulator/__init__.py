"""Emulates the rerank APIs on this machine: documented limits, quotas and errors, seeded faults, real relevance."""
