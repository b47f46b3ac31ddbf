"""The agents of the pose network, one file each."""
