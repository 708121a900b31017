"""The gallery on the screen: Kivy widgets, thin, over plain view-models that a test can use without a window.

Nothing here imports an engine: a model is opened by the callable that `launch.run` is given, in a worker thread.
"""
