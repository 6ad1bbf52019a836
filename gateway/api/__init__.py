"""The windows: HTTP, SSE, WebSocket, dialects, pages. They know the engine by its one facade and no workshop."""
