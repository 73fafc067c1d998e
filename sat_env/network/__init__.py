"""The network that moves: links, topology, ground contacts, chains and routes, all from orbits alone."""
