"""Running large models on satellites: a Gymnasium environment with planners and agents."""
