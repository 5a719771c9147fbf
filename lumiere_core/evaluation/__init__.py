"""Measuring a model: `python -m lumiere_core evaluate WHAT`.

Every evaluation is a list of cases, a file with one JSON line for each case that was run, and a table
of bars made from that file (cases.py, store.py, table.py, command.py); the oracle is in oracle/.
"""
