"""A running HAProxy, kept in step with the inventory and with the nodes that prove themselves."""
