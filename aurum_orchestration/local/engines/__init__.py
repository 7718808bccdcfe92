"""Servers on this machine: provisioned once into a cache folder, then started from there."""
