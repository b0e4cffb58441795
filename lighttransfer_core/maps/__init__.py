"""Attention maps of a prefill, computed on demand: which attention (`view`), cells and levels, profiles, all heads.

Nothing here is ever T x T: a map is a function of the prefill's queries, keys and log-sum-exp.
"""
