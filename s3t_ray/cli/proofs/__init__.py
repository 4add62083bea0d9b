"""Commands that hand out or check proof: certificates, the log's head, witnesses, verification and audits."""
