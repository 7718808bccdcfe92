"""A project with assets of its own, which lets the tables that they are written to be maintained."""
