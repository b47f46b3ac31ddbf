"""Events of a run, and the windows they make: window -> legends."""

POSE = ("train_loss", "valid_loss", "train_pck", "valid_pck", "lr")
AGENT = ("agent_lr", "agent_loss", "reward_share", "pck_gap")
BINS = {
    "scale distribution": ["-0.6", "-0.4", "-0.2", "0", "+0.2", "+0.4", "+0.6"],
    "rotation distribution": ["-60°", "-40°", "-20°", "0°", "+20°", "+40°", "+60°"],
}
RUNNING = "training (running)"
JOINT = {
    "loss": [RUNNING, "training", "validation"],
    "PCK": ["training crops", "validation"],
    "gap": ["mean"],
    "reward": ["rewarded"],
    "agent loss": [RUNNING, "training"],
    "learning rates": ["of the network", "of the agent"],
    **BINS,
}


def start(epoch: int = 0, stage: str = "joint-train-pose-s-r-agent", **options: str) -> dict:
    options = {"exp_id": "run", "vis_env": "None"} | options
    return {
        "kind": "start",
        "time": 0.0,
        "stage": stage,
        "measure": "PCKh@0.5",
        "epoch": epoch,
        "epochs": 9,
        "options": options,
    }


def epochs(first: int, end: int) -> list[dict]:
    """Two batches and a row for each of these epochs of the joint stage."""
    events = []
    for epoch in range(first, end):
        for batch in (5, 10):
            means = {"loss": 1 / (epoch + batch), "agent_loss": 2.0}
            events.append({"kind": "batch", "epoch": epoch, "batch": batch, "batches": 10, **means})
        values = {name: (rank + 1) / (epoch + 2) for rank, name in enumerate(POSE + AGENT)}
        lists = {f"{kind}_distribution": [0.05 * i for i in range(7)] for kind in ("scale", "rotation")}
        events.append({"kind": "epoch", "epoch": epoch, **values, **lists})
    return events
