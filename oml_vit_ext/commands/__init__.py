"""The command line, one file for each command: parse, call, print. What is heavy is imported when a command runs."""
