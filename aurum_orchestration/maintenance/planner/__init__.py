"""Pure functions from health, policy and history to decisions. No I/O."""
