"""Probing, comparing and cleaning of media files, in child processes. ``Media`` in ``probe.py`` is the way in."""
