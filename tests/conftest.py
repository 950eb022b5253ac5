"""For all tests."""

import pipeline  # noqa: F401  before anything imports torch: it decides how torch's threads wait
