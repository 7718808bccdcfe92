"""Servers of this machine, on the real thing."""
