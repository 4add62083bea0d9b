"""Access control: bearer tokens, the page's token, and the guard in front of every route."""
