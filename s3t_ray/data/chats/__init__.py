"""Tokenizes conversations: roles, tool calls, chat templates, and protection against control tokens in text."""
