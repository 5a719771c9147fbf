"""Everything that touches the host's internals; the nodes use it, core never does."""
