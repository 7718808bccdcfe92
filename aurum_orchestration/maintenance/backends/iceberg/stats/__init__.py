"""Statistics of a table and its columns: from manifests, and distinct values from a sample of rows."""
