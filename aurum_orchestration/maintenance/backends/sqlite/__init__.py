"""SQLite: a database that is one file, read and written by this process itself."""
