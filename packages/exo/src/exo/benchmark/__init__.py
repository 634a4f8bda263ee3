"""How fast a server answers, whichever server it is: what `exo bench` measures, and its reports.

The decisions (plan, statistics, tables) are pure; `client` and `runner` get the HTTP client and the clock passed in.
"""
