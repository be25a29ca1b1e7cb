"""Check an oracle for look-ahead: the audit, its checks, perturbed panels, a set clock, a process of its own."""
