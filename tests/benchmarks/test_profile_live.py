from xml.etree import ElementTree

import profile_live as profile

RECORDED = """\
thread (7): worker;run (threading.py:9);_run (streamtwl/session.py:270);score (streamtwl/backbones/yamnet.py:51);infer (onnxruntime/x.py:3) 60
thread (7): worker;run (threading.py:9);_run (streamtwl/session.py:271);hop (streamtwl/reasoners/candidates.py:60) 30
thread (8): MainThread;wait (threading.py:1) 10
"""  # noqa: E501


def test_samples_count_for_the_innermost_part_of_ours():
    shares = profile.by_part([*profile.read(RECORDED)])
    assert shares == {"backbones": 0.6, "reasoner": 0.3, "other": 0.1}


def test_frames_are_as_wide_as_their_share_and_lie_within_their_callers():
    drawn = ElementTree.fromstring(profile.flame_graph([*profile.read(RECORDED)]))
    boxes = {}
    for group in drawn.iter("{http://www.w3.org/2000/svg}g"):
        title, box, _ = group
        x, width = (float(box.get(name)) for name in ("x", "width"))
        boxes[title.text.partition(" (")[0]] = (x, x + width)
    width = profile.WIDTH
    assert boxes["score"][1] - boxes["score"][0] == 0.6 * width
    assert boxes["_run"][1] - boxes["_run"][0] == 0.9 * width  # its two lines are one frame
    for frame, caller in (("score", "_run"), ("hop", "_run"), ("_run", "run")):
        assert boxes[caller][0] <= boxes[frame][0]
        assert boxes[frame][1] <= boxes[caller][1] + 0.1
