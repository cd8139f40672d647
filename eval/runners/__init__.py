"""Programs compared by eval/compare_peers.py, a file each: run as scripts by their own Python, they import nothing of
each other's, and nothing of ours but refdesk's own runner."""
