"""A trained model as ONNX, checked against torch, packed with its manifest."""
