"""Networks that turn a clip into a vector: files that the user supplies; none is shipped."""

from .network import Network, load_network

__all__ = ["Network", "load_network"]
