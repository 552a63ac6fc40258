"""Training on several machines: roles, servers, waiting."""
