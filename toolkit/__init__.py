"""The library that processes are made of; usable from a notebook without a job.

A regular package on purpose: with the clone first on sys.path it wins over any other `toolkit`, which a namespace
package would not.
"""
