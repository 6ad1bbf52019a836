"""Where bytes live, and how they come from a URL. Imported by ``main.py`` only; others know ``interfaces.py``."""
