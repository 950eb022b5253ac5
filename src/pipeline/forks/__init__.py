"""A process that has imported the third-party packages and forks for each command.

    PIPELINE_WARM=1       let such a process run each `python -m pipeline.NAME`; start one where there is none
    PIPELINE_WARM=FOLDER  the same with one whose socket lies in FOLDER; start none
    PIPELINE_WARM=0       as if it were not set

Neither module imports anything but the standard library, nor the server anything of the project. What a fork has in
common with a process of its own, and what it has not: docs/warm.md.
"""
