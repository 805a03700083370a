"""How good rankings are: measures before and after reranking, and the gate against the last accepted run."""
