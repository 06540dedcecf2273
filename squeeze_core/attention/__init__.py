"""Who sees whom, and how strongly: owners, strength and regions, for both hosts.

`rules.py` holds what a user asks for, before the sizes are known; `visibility.py` what that means for every token,
and the plain mask; `groups.py` the same without a mask, which is what both hosts compute.
"""
