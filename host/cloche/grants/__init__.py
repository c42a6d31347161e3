"""The grant decision: manifest and policy to grants, with a reason for every yes and no."""
