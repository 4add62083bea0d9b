"""The run's log as others see it: published files, witnesses, timestamps, certificates handed out, a change of key."""
