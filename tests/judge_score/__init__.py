"""The judge is scored: faults put into ports by hand, and honest trainings that Hypothesis draws.

``python -m tests.judge_score`` puts every fault of :mod:`tests.judge_score.faults` into a port that is right without
it, and judges thousands of honest trainings. It prints how many faults were caught, at the right stage and step, with
the right cause, and how many alarms were false.
"""
