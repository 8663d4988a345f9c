"""The page for a browser: it calls the jobs, shows what they write, and forgets it afterwards."""
