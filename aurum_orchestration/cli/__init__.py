"""The aurum command. Calls the service and holds no rule of its own."""
