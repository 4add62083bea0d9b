"""How the answers of the commands look: renderables, units and progress. Asks the runtime nothing."""
