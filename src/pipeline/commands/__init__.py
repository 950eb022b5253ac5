"""The commands around the stages, a module each: `main(args)` does the work.

pipeline/cli.py starts them; parsers.py has their arguments and what their --help says.
"""
