"""Planners and schedules to compare with; used from the checkout."""
