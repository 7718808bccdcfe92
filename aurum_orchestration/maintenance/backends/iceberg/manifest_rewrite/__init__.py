"""Rewriting manifests: the same entries in few manifests, clustered by partition. No data file is read or changed."""
