"""comfygate: a gateway that makes a pool of ComfyUI instances one dependable service."""
