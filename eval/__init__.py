"""What refdesk is worth, measured: retrieval quality, answers, speed."""
