"""What the commands do when something goes wrong, tried at random: `python -m tests.campaign -h`.

From the ground up: `children` (a command in a forked process), `judging` (what is a clean end),
`commands` (six of them at tiny sizes), `kills`, `disasters`, the files of `corpus_*` and the
commands that get them (`inputs`), `fuzzing`, `tables` (what docs/reliability.md shows).
"""
