"""`pocketclip models available` and `pull`: bundles from ready-made ONNX towers on a model hub."""
