"""Accuracy with intervals, tests and calibration."""
