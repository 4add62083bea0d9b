"""Conversations in tokens: roles and tool calls, chat templates, and text that can never become a control token."""
