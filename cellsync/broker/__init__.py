"""Brokers: log in to one host of a transport_url, look at its queues, and see whether it takes messages."""

from cellsync.broker.probing import NOVA_CELLS, probe

__all__ = ["NOVA_CELLS", "probe"]
