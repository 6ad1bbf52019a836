"""Safety checks of inputs: a classifier of the operator's (ONNX), or a service. Neither ships any weights."""
