"""Cohorts: lists of patients, one network from their sparse annotation, and that network on many more. Nobody but the command line imports this."""
