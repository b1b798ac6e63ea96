"""Row readers: functions that parse one row of a source to records, a module for each kind.

A reader is given the columns of a row and yields records (one EPFL question holds several pairs).
What can't be read raises `UnreadableRowError`, what is left out on purpose raises `SkippedRecord`,
or is yielded as one where the row holds more, each with a short reason, so that nothing is dropped
without being counted. `parsing` holds what readers of all kinds share: columns and turns.
"""
