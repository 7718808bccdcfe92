"""SQLite files, real ones."""
