"""Files for production: ONNX of backbones, segmenters and detectors."""
