"""Real servers for tests that pip cannot install: provisioned once into a cache, then started from there by fixtures.

``python -m aurum_orchestration_tests.servers NAME...`` provisions; tests only look whether an engine is there.
"""
