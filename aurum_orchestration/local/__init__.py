"""The embedded stack for a laptop: a real lake with real data, for the demo and the tests."""
