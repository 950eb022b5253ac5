"""What a configuration may say (schema), and how a mistake in one is explained (check)."""
