"""What holds for all tests here."""

import os

from hypothesis import settings

# No test asserts a time: a busy machine may take any.
settings.register_profile("raftstacks", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "raftstacks"))
