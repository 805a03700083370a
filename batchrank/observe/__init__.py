"""Shows a running job to others: in a status file, in a Prometheus file, and on a Prometheus port if one is set."""
