"""A running job as others see it: a status file, a Prometheus file, an optional Prometheus port."""

from batchrank.observe.observer import Observer
from batchrank.observe.status import Status, read_status

__all__ = ["Observer", "Status", "read_status"]
