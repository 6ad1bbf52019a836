"""A ComfyUI custom-node pack: face swap and face detection on the CPU. Imports nothing of gateway/."""
