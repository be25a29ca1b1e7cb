"""Every page: what it says, its charts and templates."""
