"""Shows a job to others: while it runs in a status file and as Prometheus metrics, then as one self-contained page."""
