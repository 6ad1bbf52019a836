"""ComfyUI instances: reaching one over the network (``remote.py``), starting local ones (``managed.py``)."""
