"""The frozen base model: checked, loaded, quantised or split over ranks, and its tokenizer."""
