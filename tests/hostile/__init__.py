"""Hostile bytes: every decoder of what comes from the network, against whatever may come."""
