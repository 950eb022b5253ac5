"""What a trained network says of a person's own images, arrays and tables."""
