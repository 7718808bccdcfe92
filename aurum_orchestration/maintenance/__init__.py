"""The maintenance service: measure, decide, plan, lease, apply, verify, record. Knows no Dagster."""
