"""Probing, comparing and cleaning of media files, in child processes. ``MediaWorkers`` in ``workers.py`` is the way in."""
