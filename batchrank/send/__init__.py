"""Turns a chunk into its scores, each answer durable before it is used: this is stage 3."""
