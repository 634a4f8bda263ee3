"""The report as one HTML page, which fetches nothing."""
