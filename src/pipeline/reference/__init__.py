"""docs/configuration.md: every key of the configuration, made from the schema, conf/ and dvc.yaml."""
