"""The live models: the base, the stages in service, leases on them, generation and evaluation. Never uses Ray."""
