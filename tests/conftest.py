"""What all tests share."""

from hypothesis import settings

# The first call of a kernel compiles it, which takes seconds.
settings.register_profile("onnxq", deadline=None)
settings.load_profile("onnxq")
