"""The two Keras networks, the backend they run on, and their export to ONNX."""
