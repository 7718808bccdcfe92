"""A table written anew without its unused space: by pg_repack beside its users, by VACUUM FULL only when allowed."""
