"""The 16 joints: their names, and which of them are left and right of each other."""

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
"""The order is that of MPII Human Pose; left and right are the person's, not the photograph's."""

MIRROR = [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10]
"""A permutation: `points[:, MIRROR]` exchanges left and right joints."""

RIGHT_HIP, UPPER_NECK, HEAD_TOP, LEFT_SHOULDER = 2, 8, 9, 13

SCORED_JOINTS = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15]
"""All but pelvis and thorax, which the MPII evaluation leaves out of its mean."""
