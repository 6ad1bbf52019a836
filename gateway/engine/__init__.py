"""The engine: moves jobs from accepted to ended. Knows interfaces, never a concrete workshop."""
