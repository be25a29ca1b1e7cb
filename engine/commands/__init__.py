"""The commands of the command line, a group a file, and what they show in the terminal."""
