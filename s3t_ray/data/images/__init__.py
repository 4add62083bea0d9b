"""Images: decoding, conversion to model input, and perceptual hashes."""
