"""The job: what one run does, frozen and validated; from a file, the environment and ``--set``."""
