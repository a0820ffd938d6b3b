"""From a loss to a trained model: optimisers, schedules, the jitted steps, the loop around them and its checkpoints."""
