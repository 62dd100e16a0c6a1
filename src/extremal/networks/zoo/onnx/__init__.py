"""Networks from ONNX files, converted to modules of torch and compared with onnxruntime."""
