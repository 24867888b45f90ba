"""Clients of published services, one file a protocol; they know nothing of data sets."""
