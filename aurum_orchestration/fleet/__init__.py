"""The fleet: which tables there are and which policies hold for them. Knows no engine and no Dagster."""
