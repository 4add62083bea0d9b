"""Images: files into pictures, pictures into what a model reads, and what they look like."""
