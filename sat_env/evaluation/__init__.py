"""How policies are compared: metrics of an episode, statistics over episodes, results files, reports."""
