"""Old rows of PostgreSQL tables: which they are, who refers to them, and how they leave in batches."""
