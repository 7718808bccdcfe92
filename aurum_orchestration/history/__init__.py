"""What was done and who is doing something now: the operation log, health series and leases."""
