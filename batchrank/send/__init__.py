"""Stage 3: a chunk becomes its scores; every answer is durable before it is used."""
