"""Sweeps: grid, plan, tasks, executors, results on the disk, the study that is read, the ledger of trials."""
