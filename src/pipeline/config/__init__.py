"""Settings: what they may say (schema), composed from conf/ and overrides, checked, mistakes explained.

Also what Hydra may call by its name (allowed_targets), and the options of our launcher and sweepers (compose).
"""
