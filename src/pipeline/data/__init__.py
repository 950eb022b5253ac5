"""What the stages download and preprocess are made of, and how the later stages read what they wrote."""
