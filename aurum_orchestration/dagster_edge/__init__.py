"""The Dagster edge: assets, jobs, sensors, resources. Calls the service and holds no rule of its own."""
