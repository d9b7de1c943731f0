"""The mathematics, one file per idea, with no framework in sight."""
