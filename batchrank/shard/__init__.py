"""Stage 2: a query's documents become chunks within the model's limits. Pure."""
