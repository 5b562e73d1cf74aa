"""What backing up and restoring cost beside the databases' own tools: ``python -m tests.benchmarks --help``.

launch     starts processes and measures them
processes  calls it
scratch    databases and systems that exist for one benchmark
peers      each engine's own tools, and Django's
figures    medians, ratios, growth
stages     what a row costs in each stage of a backup
measure    runs us and the peers in turn, and believes no run that it has not verified
targets    what the figures should be
document   the tables
"""
