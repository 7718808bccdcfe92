"""The Trino engine against a real Trino that shares its catalog with PyIceberg."""
