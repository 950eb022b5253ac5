"""What people run beside the stages: `pipeline NAME`, one module each."""
