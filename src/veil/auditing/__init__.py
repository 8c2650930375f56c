"""The audit of releases: attackers, matchers, controls and findings. Sees arrays and labels; never imports methods."""
