"""ComfyUI's language without a socket: values in, values out. Imports nothing of ours but ``errors.py``."""
