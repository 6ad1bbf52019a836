"""Webhooks on the wire: how a message is signed, how it is carried to its URL, how secrets are kept.

When a message is sent, and how often, is decided by ``gateway/outbox.py`` and done by ``gateway/engine/courier.py``.
"""
