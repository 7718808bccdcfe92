-- Run once by the postgres image, when its volume is new. Dagster's own database is POSTGRES_DB.
CREATE DATABASE aurum;
