"""What a caller with folders wants: fit a method, apply a release, audit releases, run the demo."""
