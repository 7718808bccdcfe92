"""One package per storage family: how it measures, plans, applies and verifies."""
