"""From image to text: alphabet, decoding, the ONNX predictor. All that a served model carries."""
