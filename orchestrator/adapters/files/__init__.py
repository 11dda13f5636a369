"""What lies in folders: bundles, templates, the state folder."""
