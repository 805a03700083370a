"""Shows single rankings of a run, and proves from the answers why a document stands where it does."""
