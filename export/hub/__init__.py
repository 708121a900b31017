"""`pocketclip models`: bundles from ready ONNX towers on a model hub."""
