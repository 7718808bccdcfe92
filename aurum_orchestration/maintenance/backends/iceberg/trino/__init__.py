"""Iceberg tables worked on through a Trino coordinator, for what outgrows one machine."""
