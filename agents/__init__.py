"""Learned agents, used from the checkout by train.py and eval.py."""
