"""Whether an oracle looks ahead: the audit, its checks, and the disturbed worlds that it asks in."""
