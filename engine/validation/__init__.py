"""The verdict on a sweep: statistics, bootstrap, reruns, checks."""
