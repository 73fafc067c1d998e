"""The search of `sat_env.planning.exact`, one part a module; arrows run one way.

workspace -> arcs -> incumbent -> passes -> labels -> parts -> (exact)
"""
