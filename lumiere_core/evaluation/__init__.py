"""Measuring a model: `python -m lumiere_core evaluate VERB`, one module a verb.

An evaluation with stored lines is a list of cases, a file with one JSON line for each case that was run, and a table
of bars made from that file (cases.py, store.py, stored.py, table.py); the oracle is in oracle/.
"""
