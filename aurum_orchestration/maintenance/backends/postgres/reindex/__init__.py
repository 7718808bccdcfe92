"""REINDEX CONCURRENTLY, and what killed ones left."""
