"""Which daemon leads, for how long, and what another control plane on its database does."""
