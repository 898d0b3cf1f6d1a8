"""The hot loops, compiled: functions on arrays, imported only when they are called."""
