"""Row readers: functions that parse one row of a source to records, a module for each kind.

A reader gets the columns of a row and yields records (one EPFL question holds several pairs). It
raises `UnreadableRowError` for a malformed row and `SkippedRecord` for one that is skipped on
purpose, or yields the latter where the row holds more records. Each has a short reason, so that
every dropped row is counted. `parsing` has the helpers that all readers share.
"""
