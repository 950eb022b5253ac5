"""The network and what it is made of, as plain torch: no Lightning, no tracking, no configuration files."""

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"  # the files of a trained network
