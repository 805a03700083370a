"""Describes what one run does: a job, frozen and validated, from a file, the environment and ``--set``."""
