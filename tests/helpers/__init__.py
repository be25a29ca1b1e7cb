"""What tests share: made-up markets, servers on loopback, slow references."""
