"""Plot a training run's log on a visdom server: `python -m utils.visdom_display checkpoints/<exp_id>`."""

import logging
from pathlib import Path

from options.parser import OneLineParser
from options.values import whole_number
from utils.display.visdom import VisdomServer, default_environment
from utils.display.visdom_windows import draw_windows
from utils.records.events import EVENTS, read_events
from utils.system.errors import UserError
from utils.system.process import program, run_stage

log = logging.getLogger(__name__)


def replay() -> None:
    """Plot the event log of an experiment on a visdom server."""
    parser = OneLineParser(replay.__doc__, prog=program())
    parser.add_argument("folder", type=Path, help="folder of the experiment, such as checkpoints/<exp_id>")
    parser.add_argument("--vis_env", help="visdom environment; default: that of the run")
    parser.add_argument("--vis_server", default="http://localhost", help="URL of the visdom server")
    parser.add_argument("--vis_port", type=whole_number(1), default=8097, help="port of the visdom server")
    opt = parser.parse_args()
    path = opt.folder / EVENTS
    if not path.is_file():
        raise UserError(f"{path} does not exist: expected the folder of a training run")
    try:
        events = read_events(path)
        starts = [event for event in events if event["kind"] == "start"]
        if not starts:
            raise UserError(f"{path} has no training run: expected the folder of one")
        env = opt.vis_env or starts[-1]["options"].get("vis_env", "None")
        if env == "None":
            env = default_environment(starts[-1]["options"]["exp_id"], opt.folder.resolve())
        server = VisdomServer(env, opt.vis_server, opt.vis_port)
        windows = draw_windows(events)
        server.draw(windows)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    log.info("%d windows in the environment %s of %s", len(windows), server.env, server.address)


if __name__ == "__main__":
    run_stage(replay)
