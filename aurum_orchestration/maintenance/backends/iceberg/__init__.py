"""Apache Iceberg on the embedded engine (PyIceberg for metadata, Arrow for data)."""
