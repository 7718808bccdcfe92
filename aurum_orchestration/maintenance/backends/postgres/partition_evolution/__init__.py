"""Range partitions of PostgreSQL tables: made ahead, and out of what strayed into the default one."""
