"""The verbs of the command line; each has add_arguments(parser) and main(options)."""
