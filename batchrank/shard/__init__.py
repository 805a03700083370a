"""Packs a query's documents into chunks within the model's limits. Pure: this is stage 2."""
