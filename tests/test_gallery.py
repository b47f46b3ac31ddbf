"""What an epoch's page shows of people, and that training goes on as if it showed nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.stand_ins import generator_states

from data import DataError
from data.augmentation import Augmentation
from data.kinds import KINDS
from data.people import fixed_rows
from utils.agents import AGENTS
from utils.display.drawing import draw_skeleton, encode_jpeg
from utils.display.exhibits import draw_exhibits
from utils.display.gallery import pose_gallery, predict_crops
from utils.display.markup import gallery_page
from utils.evaluation.evaluate import evaluate


def scale_rotation(run, network):
    return AGENTS["agent"].build(run, network, 1e-3)


def agent_gallery(agent, epoch, hardest=()):
    exhibits = agent.exhibits({"epoch": epoch}, hardest)
    return draw_exhibits(agent.run, agent.pose, exhibits)


def test_galleries_leave_training_as_it_was(nasty_run):
    network = nasty_run.pose_network()
    agent = scale_rotation(nasty_run, network)
    parts = network, agent.learner.network
    for part in parts:
        part.train()
    network.bn1.eval()
    for name in ("order", "random"):
        nasty_run.streams[name]
    assert agent.streams
    states = [{name: value.clone() for name, value in part.state_dict().items()} for part in parts]
    modes = [module.training for part in parts for module in part.modules()]
    draws = generator_states(nasty_run.streams) | {"default": torch.default_generator.get_state()}
    assert len(draws) > 5
    hardest = [{"row": 0, "choice": "scale", "value": 0.0, "pck_agent": 1.0, "pck_reference": 1.0}]
    first = agent_gallery(agent, 3, hardest)
    assert len(first) == 2
    assert modes == [module.training for part in parts for module in part.modules()]
    for part, state in zip(parts, states, strict=True):
        assert all(torch.equal(state[name], value) for name, value in part.state_dict().items())
    now = generator_states(nasty_run.streams) | {"default": torch.default_generator.get_state()}
    assert now.keys() == draws.keys() and all(torch.equal(now[name], draws[name]) for name in now)
    assert agent_gallery(agent, 3, hardest) == first


def test_best_people_are_not_worse_than_the_worst(nasty_run):
    network = nasty_run.pose_network()
    evaluation = evaluate(nasty_run, network, nasty_run.loader(nasty_run.dataset.valid, "identity"))
    same, best, worst = pose_gallery(nasty_run, network, evaluation)
    assert len(same.people) == len(fixed_rows(nasty_run.dataset.valid)) == 4
    shares = [[float(p.title.split()[-2]) for p in part.people] for part in (best, worst)]
    assert min(shares[0]) >= max(shares[1])
    names = [[person.title.split(":")[0] for person in part.people] for part in (best, worst)]
    assert [len(part) for part in names] == [3, 3]  # nobody is among both
    assert len({*names[0], *names[1]}) == len(nasty_run.dataset.valid) == 6


def test_pretraining_shows_the_target_beside_the_prediction(nasty_run):
    agent, people = scale_rotation(nasty_run, nasty_run.pose_network()), nasty_run.dataset.valid
    targets = {kind: torch.eye(7)[torch.arange(len(people)) % 7] for kind in KINDS}
    exhibits = agent.exhibits({"epoch": 0}, (), targets)
    (part,) = draw_exhibits(nasty_run, agent.pose, exhibits)
    for row, person in zip(fixed_rows(people), part.people, strict=True):
        assert [bars.targets for bars in person.bars] == [torch.eye(7)[row].tolist()] * len(KINDS)
    page = gallery_page("", "", [part])
    count = sum(len(KINDS[kind].means) for kind in KINDS) * len(part.people)
    assert page.count('class="predicted"') == page.count('<div class="target"') == count
    assert "Target: the collected row" in page
    (part,) = agent_gallery(agent, 0)  # joint training has no targets
    assert "arget" not in gallery_page("", "", [part]).split("</style>")[1]


def test_joints_that_nobody_in_training_has_are_not_predicted(nasty_run, monkeypatch):
    dataset, network = nasty_run.dataset, nasty_run.pose_network()
    assert nasty_run.trained_joints.all()
    batch = nasty_run.batch(dataset.valid, np.array([0, 3]), "identity")
    sample = nasty_run.augment(batch, Augmentation.identity(2))
    before, points = predict_crops(nasty_run, network, sample), dataset.people.points.copy()
    points[~dataset.people.valid, 3] = 0
    lacking = replace(dataset, people=replace(dataset.people, points=points))
    monkeypatch.setitem(vars(nasty_run), "dataset", lacking)
    monkeypatch.delitem(vars(nasty_run), "trained_joints")
    after = predict_crops(nasty_run, network, sample)
    assert before.heatmaps[:, 3].any() and not after.heatmaps[:, 3].any() and not after.found[:, 3].any()
    others = np.arange(16) != 3
    assert (after.heatmaps[:, others] == before.heatmaps[:, others]).all() and (after.pck == before.pck).all()


def test_pictures_are_the_crops(nasty_run):
    people = nasty_run.batch(nasty_run.dataset.valid, np.array([0, 3]), "identity")
    sample = nasty_run.augment(people, Augmentation.identity(2))
    crops = predict_crops(nasty_run, nasty_run.pose_network(), sample)
    assert crops.side == 96 and crops.image.shape == (2, 96, 96, 3)
    for image, crop in zip(crops.image, sample.image, strict=True):
        small = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BOX), float)
        assert np.abs(small - 255 * crop.permute(1, 2, 0).numpy()).mean() < 8
    white = replace(sample, image=torch.ones_like(sample.image))
    assert (predict_crops(nasty_run, nasty_run.pose_network(), white).image == 255).all()


def test_a_person_is_told_its_share_of_found_joints(nasty_run):
    network, people = nasty_run.pose_network(), nasty_run.dataset.valid
    evaluation = evaluate(nasty_run, network, nasty_run.loader(people, "identity"))
    evaluation.preds[:] = torch.from_numpy(people.points)
    evaluation.preds[2, [0, 1, 2, 3, 4, 5, 10]] -= 1000  # half of the joints that are scored
    best, worst = pose_gallery(nasty_run, network, evaluation)[1:]
    assert {person.title.split(": ")[1] for person in best.people} == {"PCKh@0.5 100\u00a0%"}
    assert worst.people[0].title == "valid-0002.jpg, person 2: PCKh@0.5 50\u00a0%"


def test_a_persons_pictures_are_its_own(nasty_run):
    network = nasty_run.pose_network()
    rows = fixed_rows(nasty_run.dataset.valid)
    (section,) = agent_gallery(scale_rotation(nasty_run, network), 0)
    identity = Augmentation.identity(len(rows))
    crops = predict_crops(
        nasty_run,
        network,
        nasty_run.augment(nasty_run.batch(nasty_run.dataset.valid, rows, "drawn"), identity),
    )
    assert [person.pictures[0].jpeg for person in section.people] == [crops.skeletons(k) for k in range(4)]
    for person in section.people:
        plain, agents, random = (picture.caption for picture in person.pictures)
        assert plain.startswith("not augmented: PCKh ") and random.startswith("random: ")
        for kind, bars in zip(KINDS.values(), person.bars, strict=True):
            value = float(agents.split(f"{kind.name} ")[1].split(",")[0].strip("°").replace("\u2212", "-"))
            assert abs(value - kind.means[bars.drawn]) < 1.2 * kind.std


def test_a_prediction_lies_on_the_truth(nasty_run):
    people = nasty_run.batch(nasty_run.dataset.valid, np.array([0]), "identity")
    crops = predict_crops(
        nasty_run, nasty_run.pose_network(), nasty_run.augment(people, Augmentation.identity(len(people)))
    )
    crops.heatmaps[:] = 1
    truth = draw_skeleton(crops.image[0], crops.truth[0], crops.known[0], truth=True)
    other = crops.pred[0] + 20
    for skeletons, pred in ((crops.skeletons(0), crops.pred[0]), (crops.skeletons(0, other), other)):
        assert skeletons == encode_jpeg(draw_skeleton(truth, pred, np.ones(16, bool)))


def test_draws_that_lost_most_are_told(nasty_run):
    draws = [
        {"row": 2, "choice": "scale", "value": -0.5, "pck_agent": 0.75, "pck_reference": 1.0},
        {"row": 1, "choice": "rotation", "value": 45.0, "pck_agent": 0.0, "pck_reference": 0.75},
    ]
    _, section = agent_gallery(scale_rotation(nasty_run, nasty_run.pose_network()), 0, draws)
    first, second = section.people
    assert first.title == "train-0002.jpg, person 2: PCKh@0.5 75\u00a0%, 100\u00a0% under the random draw"
    assert second.title == "train-0001.jpg, person 1: PCKh@0.5 0\u00a0%, 75\u00a0% under the random draw"
    captions = [person.pictures[0].caption for person in section.people]
    assert "scale \u22120.5, PCKh" in captions[0] and "rotation" not in captions[0]
    assert "rotation +45°, PCKh" in captions[1] and "scale" not in captions[1]


def test_a_photograph_that_is_gone_is_named(nasty_run):
    people = nasty_run.dataset.valid[np.array([0])]
    people.image[0] = "demo/images/gone.jpg"
    with pytest.raises(DataError, match=r"gone\.jpg"):
        nasty_run.batch(people, np.array([0]), "identity")
