"""Numbered, runnable studies: ``python -m research.studies.01_numerai_publication_delay``."""
