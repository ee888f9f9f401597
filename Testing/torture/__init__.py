"""`make torture`: attacks on a real worker and on everything that is read, written from what is promised (docs/reliability.md).

`campaign.py` runs them, `attacks.py` lists them; an attack is a function of a `Trial`, which has the random numbers, so that a failure can be made
again. `engine.py` is a worker at the end of raw pipes, `painter.py` the host that paints and knows what must be on disk, `sabotage.py` what goes
wrong inside the process under attack, `fuzz.py` many inputs in child processes, `mutate.py` how inputs are damaged.
"""
