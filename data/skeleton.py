"""The joints that people have: their names, and which are each other's mirror image."""

JOINT_NAMES = (
    "right ankle",
    "right knee",
    "right hip",
    "left hip",
    "left knee",
    "left ankle",
    "pelvis",
    "thorax",
    "upper neck",
    "head top",
    "right wrist",
    "right elbow",
    "right shoulder",
    "left shoulder",
    "left elbow",
    "left wrist",
)
"""The 16 joints in the order of MPII Human Pose; left and right are the person's own."""

MIRROR = [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10]
"""The permutation `points[:, MIRROR]` exchanges the left and the right joints."""

RIGHT_HIP, UPPER_NECK, HEAD_TOP, LEFT_SHOULDER = 2, 8, 9, 13

SCORED_JOINTS = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15]
"""All but pelvis and thorax, which the MPII evaluation leaves out of its mean."""
