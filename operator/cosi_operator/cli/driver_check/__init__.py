"""`cosi driver check`: what a driver does with every call, right and wrong, and what to set for it.

`ask` makes the calls, `judge` and `advice` look at what was `seen`, `show` prints, `command` joins
them; all but `ask` and `command` are pure.
"""
