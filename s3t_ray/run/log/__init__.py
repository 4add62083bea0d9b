"""The run's log for third parties: published files, witnesses, timestamps, certificates, key changes."""
