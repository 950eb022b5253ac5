"""Lightning around the network: batches, metrics, the module, progress, checkpoints. Builds no configuration."""
