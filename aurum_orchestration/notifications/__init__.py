"""Telling people what happened: from results to notices in the outbox, and from there through apprise.

Imported by the service; apprise itself only when there is something to send.
"""
