"""The paper's user study (appendix H): a page without a server, and what its answers say.

`building.py` writes the page, `answers.py` reads what participants hand in, `analysis.py` counts it.
"""
