"""Is B better than A? Which runs are meant, what they answered on the same test images, and what can be said of it."""
