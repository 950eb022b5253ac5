"""Many trainings as one thing: a parent run with a child for each job, resumable, compared at the end."""
