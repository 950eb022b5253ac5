"""What the notebooks compute and draw."""

from pipeline.system.startup import set_thread_environment

# Before these modules import torch: so its threads wait, and its products have the bits, as in commands, and a network
# that is trained here is the one of `pipeline train`.
set_thread_environment()
