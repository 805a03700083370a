"""Measures how good rankings are, before and after reranking, and compares them with the last accepted run."""
