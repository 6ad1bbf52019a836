"""The CPU worker: a small server that speaks ComfyUI's protocol and really executes API-format graphs.

It is a program of its own, started by the gateway as ``python -m gateway.embedded``; nothing of it is imported by the
gateway. It lets the whole service be tried, and tested, on a machine without a GPU and without ComfyUI.

A prompt's way through it::

    server.py      HTTP and WebSocket routes; nothing but translation
    validation.py  may this graph run? (the exact answers of ComfyUI's POST /prompt)
    state.py       the queue, what runs, the history
    execution.py   one thread runs one prompt at a time: order, cache, progress, interrupts
    nodes_*.py     what each node does; registry.py lists them for /object_info
    sockets.py     frames to clients, in order

``quirks.py`` holds what real servers do and a well-behaved one would not; ``faults.py`` what may be made to go wrong.
"""
