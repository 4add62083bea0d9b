"""What each task adds to a base model: its head, its loss, and how outputs are judged."""
