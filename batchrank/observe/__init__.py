"""A running job as others see it: a status file, a Prometheus file, an optional Prometheus port."""
