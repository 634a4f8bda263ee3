"""The node's side of a worker process: spawned, watched, restarted, given one run at a time."""
