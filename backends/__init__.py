"""One adapter per framework, and nothing in it but what differs between frameworks."""
